//! Runs programs that install, with progress. Their output is shown only if they fail.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::progress::Progress;

/// Lines of output that explain a failure.
const KEPT: usize = 30;

/// Runs a program to its end. `text` turns each line of output into a line of progress.
pub(super) fn run(mut command: Command, mut text: impl FnMut(&str) -> Option<String>) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
    let (sender, lines) = channel();
    if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
        spawn(out, sender.clone());
        spawn(err, sender);
    }
    let mut progress = Progress::start();
    let mut kept = VecDeque::new();
    let mut last = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(500)) {
            Ok(line) => {
                last = text(&line).or(last);
                kept.push_back(line);
                if kept.len() > KEPT {
                    kept.pop_front();
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if let Some(last) = &last {
            progress.show(|| last.clone());
        }
    }
    progress.clear();
    let status = child.wait().with_context(|| format!("cannot wait for {name}"))?;
    if !status.success() {
        bail!("{name} failed:\n{}", kept.make_contiguous().join("\n"));
    }
    Ok(())
}

fn spawn(from: impl Read + Send + 'static, to: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = to.send(line);
        }
    });
}
