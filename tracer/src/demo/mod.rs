//! The incident of `portchurn demo`: a small service that runs out of ephemeral ports, so that anyone can watch a real exhaustion on
//! their own machine without changing anything else on it.
//!
//! `checkout-api` calls a backend. One of its workers keeps a pool of connections and is fine; another (`legacy-export`)
//! opens a connection per call, closes first, and so leaves a `TIME_WAIT` behind each time, until no port is left towards the backend.
//! Everything is real (processes, sockets, the kernel's errors), in two network namespaces that are joined by a veth pair
//! and have no names: they vanish with the processes in them.
//!
//! The children are this executable again (`demo-role`, [`role_main`]). Each child ends when its standard input ends, so that no child
//! outlives this process however it ends. A parent-death signal would come too early: it fires when the *thread* that started the child
//! ends. The children have a process group of their own: Ctrl-C reaches only this process, which stops them.
//!
//! Not for: tracing. The workload's own counts ([`Progress`]) are compared with what portchurn sees.

mod child;
mod net;
mod protocol;
mod roles;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use tracer_core::event::Netns;

use child::Child;
pub use protocol::DemoCounts;
pub use roles::{ROLE, role_main};

/// A set-up that takes longer than this has failed.
const SETUP_LIMIT: Duration = Duration::from_secs(10);
/// The traffic ends by itself long before this, unless the machine stands still.
const TRAFFIC_LIMIT: Duration = Duration::from_secs(30);

/// The running incident. Dropping it ends every process of it and with them the namespaces.
pub struct Incident {
    backend: Child,
    pool: Child,
    legacy: Child,
    netns: Netns,
    started: Instant,
}

/// How far the incident has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What the worker with the pool counted.
    pub pool: DemoCounts,
    /// What the worker without one counted.
    pub legacy: DemoCounts,
    /// The traffic is over; the namespaces are still there.
    pub finished: bool,
}

impl Progress {
    /// What the workload as a whole counted.
    pub fn total(&self) -> DemoCounts {
        self.pool.plus(self.legacy)
    }
}

impl Incident {
    /// Makes the namespaces and starts the traffic in them. Needs `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`, and `ip` of iproute2.
    ///
    /// Returns once traffic flows, so a trace that is to see all of it must have started before.
    pub fn start() -> Result<Self> {
        net::ip_is_there()?;
        let executable = std::env::current_exe().context("finding this executable, which the demo starts again")?;
        let deadline = Instant::now() + SETUP_LIMIT;
        let spawn = |name: &str, role: &[&str]| Child::spawn(&executable, name, role);

        let mut backend = spawn(roles::BACKEND, &[roles::LISTEN, &net::backend().to_string()])?;
        backend.ready(deadline)?;
        let mut pool = spawn(roles::CHECKOUT, &[roles::WORKER, roles::POOL])?;
        pool.ready(deadline)?;
        // The veth pair is made inside the client's namespace, its other end is moved into the backend's, then each end gets its address.
        pool.tell(&format!("join {}", backend.pid()))?;
        pool.ready(deadline)?;
        backend.tell("listen")?;
        backend.ready(deadline)?;
        let mut legacy = spawn(roles::CHECKOUT, &[roles::WORKER, roles::LEGACY])?;
        legacy.ready(deadline)?;
        legacy.tell(&format!("enter {}", pool.pid()))?;
        legacy.ready(deadline)?;

        let netns = net::netns_of(pool.pid())?;
        for worker in [&mut pool, &mut legacy] {
            worker.tell("go")?;
            worker.ready(deadline)?;
        }
        Ok(Self { backend, pool, legacy, netns, started: Instant::now() })
    }

    /// The network namespace of `checkout-api`: where the ports run out.
    pub fn netns(&self) -> Netns {
        self.netns
    }

    /// What the workload counted so far. Never waits. An error: one of its processes ended too early.
    pub fn poll(&mut self) -> Result<Progress> {
        self.backend.update()?;
        self.pool.update()?;
        self.legacy.update()?;
        let finished = self.legacy.is_done() || self.started.elapsed() >= TRAFFIC_LIMIT;
        Ok(Progress { pool: self.pool.counts(), legacy: self.legacy.counts(), finished })
    }

    /// Ends every process and returns the last counts.
    pub fn stop(mut self) -> Result<Progress> {
        let progress = self.poll()?;
        // Clients first, so that the backend sees them close; the drop of each waits for its process.
        drop(self.legacy);
        drop(self.pool);
        drop(self.backend);
        Ok(progress)
    }
}
