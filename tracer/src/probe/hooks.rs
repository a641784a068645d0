//! The programs of the BPF object: each with its hook, and which ones replace each other.

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// A tracepoint with typed arguments; needs BTF.
    BtfTracepoint,
    /// A classic tracepoint of this category; needs tracefs.
    Tracepoint(&'static str),
    /// Before a kernel function; needs BTF and a trampoline.
    Fentry,
    /// After a kernel function; needs BTF and a trampoline.
    Fexit,
}

/// One hook and its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// BPF program.
    pub program: &'static str,
    /// Tracepoint or kernel function.
    pub hook: &'static str,
    /// How the program is attached.
    pub kind: HookKind,
}

const fn hook(program: &'static str, hook: &'static str, kind: HookKind) -> Hook {
    Hook { program, hook, kind }
}

/// The chain that sees every state transition. Programs of one tracepoint run in the order of their attachment: the first link must come
/// first.
pub const CHAIN: [Hook; 3] = [
    hook("state_first", "inet_sock_set_state", HookKind::BtfTracepoint),
    hook("state_second", "inet_sock_set_state", HookKind::BtfTracepoint),
    hook("state_third", "inet_sock_set_state", HookKind::BtfTracepoint),
];
/// What sees state transitions without BTF.
pub const CLASSIC: Hook = hook("state_classic", "inet_sock_set_state", HookKind::Tracepoint("sock"));
/// What sees the end of a socket.
pub const DESTROYED: Hook = hook("socket_destroyed", "tcp_destroy_sock", HookKind::BtfTracepoint);

/// One thing to see, and the two ways to see it: functions of TCP where fentry and fexit work, tracepoints elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Purpose {
    /// Its name in degradations.
    pub name: &'static str,
    /// fentry and fexit.
    pub exact: &'static [Hook],
    /// Tracepoints for the same.
    pub tracepoints: &'static [Hook],
}

/// Begin and end of every minisocket.
pub const TIME_WAIT: Purpose = Purpose {
    name: "TIME_WAIT",
    exact: &[
        hook("minisocket_start", "inet_twsk_alloc", HookKind::Fexit),
        hook("minisocket_end", "inet_twsk_kill", HookKind::Fentry),
    ],
    tracepoints: &[
        hook("time_wait_start", "timer_start", HookKind::BtfTracepoint),
        hook("time_wait_end", "timer_cancel", HookKind::BtfTracepoint),
    ],
};

/// The return of connect().
pub const CONNECT: Purpose = Purpose {
    name: "connect",
    exact: &[
        hook("connected_v4", "tcp_v4_connect", HookKind::Fexit),
        hook("connected_v6", "tcp_v6_connect", HookKind::Fexit),
    ],
    tracepoints: &[
        hook("connect_enter", "sys_enter_connect", HookKind::Tracepoint("syscalls")),
        hook("connect_exit", "sys_exit_connect", HookKind::Tracepoint("syscalls")),
    ],
};

/// The return of bind().
pub const BIND: Purpose = Purpose {
    name: "bind",
    exact: &[hook("bound_v4", "inet_bind", HookKind::Fexit), hook("bound_v6", "inet6_bind", HookKind::Fexit)],
    tracepoints: &[
        hook("bind_enter", "sys_enter_bind", HookKind::Tracepoint("syscalls")),
        hook("bind_exit", "sys_exit_bind", HookKind::Tracepoint("syscalls")),
    ],
};

const LISTENS: &[Hook] = &[
    hook("listen_enter", "sys_enter_listen", HookKind::Tracepoint("syscalls")),
    hook("listen_exit", "sys_exit_listen", HookKind::Tracepoint("syscalls")),
];
const LISTENING_OF_ONE: &[Hook] = &[hook("listening_of_one", "inet_csk_listen_start", HookKind::Fexit)];
const LISTENING_OF_TWO: &[Hook] = &[hook("listening_of_two", "inet_csk_listen_start", HookKind::Fexit)];

/// The return of listen(), whose function lost a parameter in 5.17; see [`accept`].
pub const fn listen(parameters: Option<usize>) -> Purpose {
    let exact: &[Hook] = match parameters {
        Some(1) => LISTENING_OF_ONE,
        Some(2) => LISTENING_OF_TWO,
        _ => &[],
    };
    Purpose { name: "listen", exact, tracepoints: LISTENS }
}

const ACCEPT_EXITS: &[Hook] = &[
    hook("accept_exit", "sys_exit_accept", HookKind::Tracepoint("syscalls")),
    hook("accept4_exit", "sys_exit_accept4", HookKind::Tracepoint("syscalls")),
];

const ACCEPTED_OF_TWO: &[Hook] = &[
    hook("accepted_of_two", "inet_csk_accept", HookKind::Fexit),
    hook("accepted_of_two_again", "inet_csk_accept", HookKind::Fexit),
];
const ACCEPTED_OF_FOUR: &[Hook] = &[
    hook("accepted_of_four", "inet_csk_accept", HookKind::Fexit),
    hook("accepted_of_four_again", "inet_csk_accept", HookKind::Fexit),
];

/// accept(): fexit finds a function's result behind its parameters, whose number changed in 6.10. Without a program for this
/// number the system calls are left.
pub const fn accept(parameters: Option<usize>) -> Purpose {
    let exact: &[Hook] = match parameters {
        Some(2) => ACCEPTED_OF_TWO,
        Some(4) => ACCEPTED_OF_FOUR,
        _ => &[],
    };
    Purpose { name: "accept", exact, tracepoints: ACCEPT_EXITS }
}
