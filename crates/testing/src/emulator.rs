//! One ministack and one moto for a test program, with their files in a directory that belongs to that program.
//!
//! `tmpdir` is `env!("CARGO_TARGET_TMPDIR")`, which cargo gives to integration tests only.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use local_cloud::emulators::{Emulator, default_venv};

/// Returns the endpoint of this test program's ministack, which the first call starts.
pub fn ministack(tmpdir: &str) -> &'static str {
    static ENDPOINT: OnceLock<String> = OnceLock::new();
    let dir = own_dir(tmpdir);
    ENDPOINT.get_or_init(|| {
        until_the_end(async |started| serve(Emulator::start_ministack(dir).await, &started).await)
    })
}

/// Returns the endpoint of this test program's moto, which the first call starts.
pub fn moto(tmpdir: &str) -> &'static str {
    static ENDPOINT: OnceLock<String> = OnceLock::new();
    let dir = own_dir(tmpdir);
    ENDPOINT.get_or_init(|| {
        until_the_end(async |started| serve(Emulator::start_moto(&default_venv(), dir).await, &started).await)
    })
}

async fn serve<E: std::fmt::Debug>(emulator: Result<Emulator, E>, started: &Sender<String>) {
    let emulator = emulator.expect("the emulator starts");
    started.send(emulator.endpoint().to_owned()).expect("a test waits");
    std::future::pending().await
}

/// Runs `work` until the test program ends, and returns the first value that `work` sends.
pub fn until_the_end<T: Send + 'static>(work: impl AsyncFnOnce(Sender<T>) + Send + 'static) -> T {
    let (send, receive) = channel();
    // Emulators die with the thread that started them, so that thread stays.
    std::thread::spawn(move || tokio::runtime::Runtime::new().expect("a runtime").block_on(work(send)));
    receive.recv().expect("it starts; the panic above says why it did not")
}

/// Returns a directory for this process alone.
///
/// Nothing runs at the end of a test program that could remove its own, so the first call removes those of test
/// programs that have ended.
pub fn own_dir(tmpdir: &str) -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let all = Path::new(tmpdir).join("processes");
        let own = all.join(std::process::id().to_string());
        for old in std::fs::read_dir(&all).into_iter().flatten().flatten() {
            let has_ended = !Path::new("/proc").join(old.file_name()).exists();
            // An ended process may have had the number of this one.
            if has_ended || old.path() == own {
                std::fs::remove_dir_all(old.path()).ok();
            }
        }
        own
    })
}
