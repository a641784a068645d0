use tracer::probe::*;
fn main() {
    let t = std::time::Instant::now();
    let host = Host::collect();
    eprintln!("{:?} {:?}", t.elapsed(), host.tw_timer_handler);
    let plan = plan(&host, &Options::default());
    for (a, b, c) in plan.offsets.entries() {
        if c == u32::MAX {
            eprintln!("missing {a} {b}");
        }
    }
    eprintln!("{:?}", plan.degraded);
    match attach::attach(&host, plan) {
        Ok(mut s) => {
            eprintln!("attached {:?} {:?} {:?}", t.elapsed(), s.degraded, s.notes);
            std::thread::sleep(std::time::Duration::from_secs(3));
            let mut names = std::collections::BTreeMap::new();
            while let Some(item) = s.ring.next() {
                *names.entry(item[0]).or_insert(0) += 1;
                if let Ok((r, _)) = tracer_common::Record::split_first(&item) {
                    match r {
                        tracer_common::Record::Task(b) => {
                            let t = tracer_common::Record::task(b).unwrap();
                            eprintln!(
                                "{} {:?} {:?} {:?} {:?}",
                                t.tgid,
                                String::from_utf8_lossy(&t.comm),
                                String::from_utf8_lossy(&t.argv),
                                String::from_utf8_lossy(&t.cgroup_v1[0]),
                                t.argv_len
                            )
                        }
                        tracer_common::Record::ReservedPorts { .. } => {}
                        r => eprintln!("{r:?}"),
                    }
                }
            }
            eprintln!("{names:?}");
            for h in &s.hooks {
                eprintln!("{:?} {:?}", h.hook.program, h.stats());
            }
        }
        Err(e) => {
            eprintln!("{e} {e:?}");
        }
    }
}
