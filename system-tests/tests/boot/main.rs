//! `make boot-test`: systemd and cloud-init boot the user data of a worker and of a load balancer as an
//! instance does.
//!
//! The machines are systemd-nspawn containers over a Debian root (`make-root.sh`); S3 and the metadata
//! service are those of a local cloud of their own. The user data is what `deploy` gave to
//! RunInstances, byte by byte. Needs root, so `cargo test` leaves it out.

#[path = "../system/aws_cli.rs"]
mod aws_cli;
#[expect(dead_code, reason = "the system tests need more of it")]
#[path = "../system/census.rs"]
mod census;
mod cloud;
mod limits;
mod machine;
mod small;
mod story;
#[expect(dead_code, reason = "the system tests need more of it")]
#[path = "../system/support.rs"]
mod support;
mod wait;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use support::{Cloud, say};

/// The root directory to boot; `make boot-test` makes it.
const ROOT: &str = "VIGIA_BOOT_ROOT";

/// The same code as the deployer's: something is missing on this machine.
const MISSING: u8 = 8;

fn main() -> ExitCode {
    let root = match root() {
        Ok(root) => root,
        Err(missing) => {
            say(&format!("error: {missing}"));
            return ExitCode::from(MISSING);
        }
    };
    wait::stop_at_signals();
    let began = Instant::now();
    // A panic of the story unwinds to here, and ends on its way the processes that it started.
    let told = std::panic::catch_unwind(|| {
        let cloud = Cloud::start();
        story::tell(&cloud, &root);
    });
    let seconds = began.elapsed().as_secs_f64();
    match told {
        Ok(()) => {
            say(&format!(
                "boot-test: a worker and a load balancer booted and kept their promises, on small machines too, \
                 {seconds:.0} s"
            ));
            ExitCode::SUCCESS
        }
        Err(_) => {
            say(&format!("boot-test: FAILED after {seconds:.0} s"));
            ExitCode::FAILURE
        }
    }
}

fn root() -> Result<PathBuf, String> {
    let root = std::env::var_os(ROOT).ok_or(format!("{ROOT} is not set; run `make boot-test`"))?;
    let root = PathBuf::from(root);
    if !root.join(".complete").exists() {
        return Err(format!("{} is no complete root; `make boot-test` makes it", root.display()));
    }
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|me| {
        use std::os::unix::fs::MetadataExt as _;
        me.uid() == 0
    });
    if !is_root {
        return Err("a machine can be booted by root only; run `make boot-test` as root".to_owned());
    }
    for tool in ["systemd-nspawn", "nsenter", "journalctl"] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|directory: PathBuf| Path::new(&directory).join(tool).exists()) {
            return Err(format!("{tool} is missing; `make boot-tools` installs it as root on Debian"));
        }
    }
    Ok(root)
}
