//! What man pages say beyond the command line's own definition.

/// A name and what is to be said about it.
pub struct Named {
    pub name: &'static str,
    pub says: &'static str,
}

/// One page.
pub struct Page {
    /// `None`: portchurn(1) itself.
    pub command: Option<&'static str>,
    /// At least one; each is checked against the command line's definition.
    pub examples: &'static [Named],
    pub files: &'static [Named],
    /// Empty: [`COMMON_EXITS`].
    pub exits: &'static [Named],
}

const fn is(name: &'static str, says: &'static str) -> Named {
    Named { name, says }
}

pub const COMMON_EXITS: &[Named] = &[
    is("0", "Done."),
    is("1", "Failed; the reason is on standard error."),
    is("2", "The command line is wrong."),
    is("3", "Not permitted, or this kernel cannot be traced."),
];

pub const ENVIRONMENT: &[Named] = &[
    is("NO_COLOR", "If not empty, nothing is coloured."),
    is("COLUMNS", "Width of reports and lines where standard output is no terminal."),
    is("LC_ALL, LC_CTYPE, LANG", "Unless they name UTF-8, the full-screen view is drawn with ASCII letters."),
];

/// What a trace reads of the host.
const HOST: &[Named] = &[
    is("/sys/kernel/btf/vmlinux", "The kernel's types. Without them the classic tracepoint is used, which tells less."),
    is("/sys/kernel/tracing", "Tracepoints; mounted for this process alone where it is not mounted."),
    is("/proc", "Processes, sockets and sysctls of before the start."),
];

const RECORDING: &[Named] = &[is(
    "FILE",
    "A recording: an Arrow table. It holds addresses and command lines, and only its owner can read it; portchurn-export(1) \
     with --redact takes the names out. Recordings of every version are read.",
)];

pub const PAGES: &[Page] = &[
    Page {
        command: None,
        examples: &[
            is("portchurn", "The full-screen view of this host."),
            is("portchurn doctor", "What this host allows, and what is lost without the rest."),
            is("portchurn report --for 30s", "Who burns ports, towards whom, and what would help."),
            is("portchurn record -o incident.arrow --for 10m", "Evidence to look at later, on another machine too."),
            is("portchurn report incident.arrow", "The verdict from it."),
        ],
        files: HOST,
        exits: &[
            is("0", "Done."),
            is("1", "Failed; the reason is on standard error."),
            is("2", "The command line is wrong."),
            is("3", "Not permitted, or this kernel cannot be traced."),
            is("4", "Of check: a condition holds."),
        ],
    },
    Page {
        command: Some("live"),
        examples: &[
            is("portchurn live", "The full-screen view."),
            is("portchurn live dst=10.0.0.0/8:443", "Only what goes to port 443 of that network."),
            is("portchurn live --by pid", "A row for each process."),
        ],
        files: HOST,
        exits: &[],
    },
    Page {
        command: Some("stream"),
        examples: &[
            is("portchurn stream --what failures", "Connects that failed, as they fail."),
            is(
                "portchurn stream dst=:443 and comm=php-fpm*",
                "Failures and finished flows of php-fpm towards port 443.",
            ),
            is("portchurn stream --json --for 1m | jq .errno", "One JSON object per line, for a minute."),
        ],
        files: HOST,
        exits: &[],
    },
    Page {
        command: Some("report"),
        examples: &[
            is("portchurn report --for 30s", "Trace for half a minute, then the verdict."),
            is("portchurn report incident.arrow", "The verdict from a recording; nothing is traced."),
            is("portchurn report --json incident.arrow", "The same for scripts."),
        ],
        files: HOST,
        exits: &[],
    },
    Page {
        command: Some("record"),
        examples: &[
            is("portchurn record -o incident.arrow --for 10m", "Ten minutes of evidence."),
            is("portchurn record -o run.arrow -- ./load-test", "For as long as a command runs."),
            is(
                "portchurn record -o trace.arrow --max-size 2G --max-age 7d",
                "Several files, of which the oldest goes.",
            ),
            is(
                "portchurn record -o flight.arrow --on exhaustion,forecast --before 5m",
                "Nothing is written until ports run out; then what went before is, too.",
            ),
        ],
        files: RECORDING,
        exits: &[
            is("0", "Done."),
            is("1", "Failed; the reason is on standard error."),
            is("2", "The command line is wrong."),
            is("3", "Not permitted, or this kernel cannot be traced."),
            is("CMD's", "With a command, its exit code, or 128 and the number of the signal that ended it."),
        ],
    },
    Page {
        command: Some("replay"),
        examples: &[
            is("portchurn replay incident.arrow", "The full-screen view of a recording."),
            is("portchurn replay incident.arrow --speed max --json errno=EADDRNOTAVAIL", "Its failures as JSON lines."),
            is(
                "portchurn replay incident.arrow --speed 10 --from '3m ago'",
                "The last three minutes, ten times as fast.",
            ),
        ],
        files: RECORDING,
        exits: &[],
    },
    Page {
        command: Some("export"),
        examples: &[
            is(
                "portchurn export incident.arrow --format parquet -o incident.parquet",
                "Every row, for DuckDB or Spark.",
            ),
            is(
                "portchurn export incident.arrow --what flows --format csv",
                "One row per connection that ended or failed.",
            ),
            is(
                "portchurn export incident.arrow --format arrow --redact -o shareable.arrow",
                "A recording without names and addresses.",
            ),
        ],
        files: RECORDING,
        exits: &[],
    },
    Page {
        command: Some("info"),
        examples: &[
            is("portchurn info incident.arrow", "What is in a recording, in ten lines."),
            is("portchurn info /var/log/portchurn", "The same of all parts in a directory."),
        ],
        files: RECORDING,
        exits: &[],
    },
    Page {
        command: Some("diff"),
        examples: &[is("portchurn diff before.arrow after.arrow", "Before and after a deploy or a sysctl.")],
        files: RECORDING,
        exits: &[],
    },
    Page {
        command: Some("check"),
        examples: &[
            is("portchurn check nightly.arrow --fail-if port-exhaustion", "For CI: fails if a connect found no port."),
            is("portchurn check nightly.arrow --fail-if 'occupancy>0.8' 'ttx<10m'", "Before it comes to that."),
        ],
        files: RECORDING,
        exits: &[
            is("0", "No condition holds."),
            is("1", "Failed; the reason is on standard error."),
            is("2", "The command line is wrong."),
            is("4", "A condition holds."),
        ],
    },
    Page {
        command: Some("doctor"),
        examples: &[
            is("portchurn doctor", "What this host allows."),
            is("portchurn doctor --json", "The same for scripts."),
        ],
        files: HOST,
        exits: &[
            is("0", "Everything works."),
            is("1", "portchurn works here with the losses listed."),
            is("2", "This host cannot be traced, or the command line is wrong."),
        ],
    },
    Page {
        command: Some("demo"),
        examples: &[is("portchurn demo", "An incident of half a minute in network namespaces of its own.")],
        files: HOST,
        exits: &[],
    },
];
