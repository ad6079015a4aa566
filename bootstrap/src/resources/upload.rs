//! Uploads of programs: an upload fails for lack of progress, not for its duration.
//!
//! | phase | bounded by |
//! |---|---|
//! | the connection takes the program piece by piece | `stall`: no byte taken for so long |
//! | the kernel still holds the last pieces, and AWS answers | the whole attempt: `last_part`, and the size at `slowest` |
//!
//! Two programs are uploaded at the same time. Over 1 Mbit/s each gets 62 kB/s, fifteen times `slowest`.

use std::path::Path;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;

use crate::error::{DeployError, Exit, Result, Step as _};

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    stall: Duration,
    last_part: Duration,
    /// Bytes per second.
    slowest: u64,
    /// After a broken connection an upload starts again from its first byte.
    tries: u32,
}

pub(super) const LIMITS: Limits = Limits {
    // Longer than any pause of a working connection.
    stall: Duration::from_secs(30),
    // A kernel takes up to 4 MB before it sends them; at 62 kB/s they take 65 s.
    last_part: Duration::from_secs(180),
    slowest: 4096,
    tries: 3,
};

/// The destination of a program.
pub(super) struct Upload<'a> {
    pub(super) name: &'a str,
    pub(super) path: &'a Path,
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
    /// Base64 of the SHA-256: S3 refuses any other bytes.
    pub(super) checksum: String,
    pub(super) bytes: u64,
}

impl Upload<'_> {
    pub(super) async fn send(&self, s3: &aws_sdk_s3::Client, limits: Limits) -> Result<()> {
        // The SDK reads a file in pieces of 64 KiB, and a stalled connection takes no further piece.
        let body = ByteStream::from_path(self.path).await;
        let body = body.map_err(|error| {
            let what = format!("cannot read the program {}", self.path.display());
            DeployError::new(Exit::Prerequisite, what)
                .hint("Build it again (the make targets do), then deploy again.")
                .caused_by(error)
        })?;
        let protection = StalledStreamProtectionConfig::enabled().upload_enabled(true);
        let config = aws_sdk_s3::config::Builder::new()
            .timeout_config(limits.timeouts(self.bytes))
            .stalled_stream_protection(protection.grace_period(limits.stall).build())
            .retry_config(RetryConfig::standard().with_max_attempts(limits.tries));
        s3.put_object()
            .bucket(self.bucket)
            .key(self.key)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(&self.checksum)
            .body(body)
            .customize()
            .config_override(config)
            .send()
            .await
            .step(|| format!("upload {}", self.name))
            .map_err(|error| explain(error, self.name, limits))?;
        Ok(())
    }
}

/// Configures the call that sends a program to Lambda. Lambda takes it within its request, as one piece, so
/// only the whole attempt is bounded.
pub(super) fn lambda(bytes: u64) -> aws_sdk_lambda::config::Builder {
    aws_sdk_lambda::config::Builder::new()
        .timeout_config(LIMITS.timeouts(bytes))
        .retry_config(RetryConfig::standard().with_max_attempts(LIMITS.tries))
}

impl Limits {
    fn timeouts(self, bytes: u64) -> TimeoutConfig {
        let attempt = self.last_part + Duration::from_secs(bytes / self.slowest);
        let all = attempt * (self.tries + 1);
        TimeoutConfig::builder().operation_attempt_timeout(attempt).operation_timeout(all).build()
    }
}

/// Adds an explanation to the error of a stalled upload.
fn explain(error: DeployError, name: &str, limits: Limits) -> DeployError {
    if error.exit != Exit::Unreachable || !error.message().contains("minimum throughput") {
        return error;
    }
    let seconds = limits.stall.as_secs();
    let what = format!("could not upload {name}: the connection accepted no data for {seconds} s");
    DeployError::new(Exit::Unreachable, what).hint(
        "Check this machine's uplink, then deploy again. Programs that were uploaded completely are \
            kept.",
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::aws::stub;

    /// More than the buffers of two kernels together.
    const BYTES: usize = 24 * 1024 * 1024;
    const LITTLE: Limits = Limits {
        stall: Duration::from_secs(1),
        last_part: Duration::from_secs(120),
        slowest: 4096,
        tries: 1,
    };

    /// How a server handles the body of a request.
    #[derive(Clone, Copy)]
    enum Server {
        /// Reads it all, in pauses between pieces: longer in all than a connection may stall.
        Slow,
        /// Reads nothing after the head.
        Stalled,
    }

    fn serve(server: Server) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for stream in listener.incoming().flatten() {
                match server {
                    Server::Slow => take_slowly(stream),
                    Server::Stalled => kept.push(stream),
                }
            }
        });
        url
    }

    fn take_slowly(mut stream: TcpStream) {
        let mut head = Vec::new();
        let mut piece = vec![0; 256 * 1024];
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            let Ok(n @ 1..) = stream.read(&mut piece) else { return };
            head.extend_from_slice(&piece[..n]);
        }
        let end = head.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
        if String::from_utf8_lossy(&head[..end]).to_lowercase().contains("100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok();
        }
        let mut taken = head.len() - end;
        while taken < BYTES {
            let Ok(n @ 1..) = stream.read(&mut piece) else { return };
            taken += n;
            std::thread::sleep(Duration::from_millis(20));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\netag: \"e\"\r\n\r\n").ok();
    }

    async fn uploaded(server: Server) -> Result<()> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(BYTES as u64).expect("its size");
        let upload = Upload {
            name: "ec2-worker",
            path: file.path(),
            bucket: "b",
            key: "k",
            checksum: "x".to_owned(),
            bytes: BYTES as u64,
        };
        upload.send(&stub::client(&serve(server)).s3, LITTLE).await
    }

    #[tokio::test]
    async fn an_upload_over_a_slow_uplink_succeeds() {
        uploaded(Server::Slow).await.expect("it makes progress");
    }

    #[tokio::test]
    async fn an_upload_that_stalls_fails_with_a_hint() {
        let error = uploaded(Server::Stalled).await.expect_err("nothing is taken");
        assert!(error.what.contains("ec2-worker: the connection accepted no data"), "{}", error.message());
        assert!(error.hint.is_some_and(|hint| hint.contains("uplink")));
    }

    #[test]
    fn an_attempt_has_time_for_a_tenth_of_a_megabit() {
        let attempt = LIMITS.timeouts(20_000_000).operation_attempt_timeout().expect("a bound");
        assert!(attempt > Duration::from_secs(20_000_000 / 12_500), "{attempt:?}");
    }
}
