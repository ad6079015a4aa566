//! The core that the proxy has to itself; no other process runs on it.

use anyhow::ensure;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// The proxy's core.
    pub proxy: usize,
    pub others: usize,
}

impl Cores {
    /// Moves this process, and everything that it starts from now on, away from the proxy's core. Must be
    /// called before there is a second thread.
    pub fn split() -> anyhow::Result<Self> {
        let this = Pid::from_raw(0);
        let mut allowed = sched_getaffinity(this)?;
        let cores: Vec<usize> =
            (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false)).collect();
        ensure!(cores.len() >= 2, "the proxy needs a core of its own: there must be two");
        let proxy = cores[0];
        allowed.unset(proxy)?;
        sched_setaffinity(this, &allowed)?;
        Ok(Self { proxy, others: cores.len() - 1 })
    }
}
