//! The pages in a real browser: `browser/story.py` is the story, and this test runs it on a stack.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{Cloud, say, text, venv, workspace};

const STACK: &str = "browser";

/// Directory for screenshots, if they are wanted.
const SCREENSHOTS: &str = "VIGIA_SCREENSHOTS";

#[test]
fn people_use_the_pages_in_a_browser() {
    let Some(chromium) = chromium() else {
        say(
            "NOT RUN: there is no chromium, so the pages were not tried in a browser; `make browser` installs it",
        );
        return;
    };
    let cloud = Cloud::start();
    cloud.deploy(STACK, &["--workers", "3"]);
    let mut story = Command::new(venv().join("bin/python"));
    story
        .arg(workspace().join("system-tests/browser/story.py"))
        .env("VIGIA_URL", cloud.url(STACK))
        .env("VIGIA_TOKEN", cloud.token(STACK))
        .env("CHROMIUM", chromium)
        .env("HOME", cloud.dir.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY");
    if let Some(directory) = std::env::var_os(SCREENSHOTS) {
        std::fs::create_dir_all(&directory).expect("a directory for the pictures");
        story.env("SCREENSHOTS", directory);
    }
    let output = story.output().expect("Python runs");
    assert!(output.status.success(), "story.py: {}", text(&output));
    String::from_utf8_lossy(&output.stderr).lines().for_each(say);
    cloud.must(STACK, &["destroy", "--yes"]);
}

/// Debian's browser.
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("chromium")).find(|program| program.exists())
}
