//! The AWS command line, in a process that stays: to start Python for each call takes a second of CPU time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use crate::support::venv;

struct Server {
    dir: tempfile::TempDir,
    /// It ends when its standard input does, so with this process.
    _child: Child,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut child = Command::new(venv().join("bin/python"))
        .args(["-c", include_str!("aws_server.py")])
        .arg(dir.path().join("socket"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", dir.path())
        .env("AWS_ACCESS_KEY_ID", "mock")
        .env("AWS_SECRET_ACCESS_KEY", "mock")
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python runs");
    let lines = BufReader::new(child.stdout.as_mut().expect("its output")).lines();
    let is_ready = lines.map_while(Result::ok).any(|line| line == "ready");
    assert!(is_ready, "the AWS command line does not load");
    Server { dir, _child: child }
});

/// Runs a command line, and returns its output.
pub(crate) fn run(arguments: &[&str]) -> Result<String, String> {
    let mut connection = UnixStream::connect(SERVER.dir.path().join("socket")).expect("it listens");
    let line = serde_json::to_string(arguments).expect("JSON");
    writeln!(connection, "{line}").expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("it answers");
    let (output, status) = answer.rsplit_once('\n').unwrap_or_default();
    if status == "0" { Ok(output.trim().to_owned()) } else { Err(answer) }
}
