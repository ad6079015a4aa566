//! A program in a process of its own that does not outlive this program, and neither do its children.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process;

pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Its output goes to the log.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone()?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns its exit status, if it has ended.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Closes its standard input, which some programs take as the order to stop, and waits.
    pub fn close(&mut self) -> anyhow::Result<ExitStatus> {
        drop(self.child.stdin.take());
        Ok(self.child.wait()?)
    }

    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns the end of its output.
    pub fn last_words(&self) -> String {
        self.output().lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing").to_owned()
    }

    /// Kills it and its children with SIGKILL.
    pub fn kill(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        for member in process::family(self.pid()).unwrap_or_default() {
            // The first is the process that would start the others again.
            if let Ok(pid) = i32::try_from(member) {
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
        }
        self.child.wait().ok();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Waits longer than anything takes on a busy machine.
    fn eventually(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so() {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_program_dies_with_its_children() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 100 & echo $!; wait"]);
        let program = Program::start(&mut shell, &dir.path().join("log")).expect("sh is everywhere");
        eventually("it says its child", || program.output().ends_with('\n'));
        let child = program.output().trim().to_owned();
        let stat = || fs::read_to_string(format!("/proc/{child}/stat"));
        assert!(stat().is_ok());
        drop(program);
        // A zombie of another parent, until that parent waits for it.
        eventually("the child is dead", || stat().map_or(true, |stat| stat.contains(") Z ")));
    }

    #[test]
    fn a_closed_program_ends_by_itself() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut cat =
            Program::start(&mut Command::new("cat"), &dir.path().join("log")).expect("cat is everywhere");
        assert!(cat.ended().expect("it can be asked").is_none());
        assert!(cat.close().expect("it ends").success());
    }
}
