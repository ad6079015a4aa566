//! Writes the log of a serving program from a thread of its own, so that an unread log blocks no request.
//!
//! | lane | whose lines | bound |
//! |---|---|---|
//! | reserved | target [`AUDIT`] | 256 KiB that wait |
//! | ordinary | all others | 256 KiB that wait; of warnings and errors from one place in the code 20 at once, then one a minute |
//!
//! A line that finds its lane full is dropped and counted. The count is the first thing that is written
//! when writing is possible again. The reserved lane is written first. How many warnings were left out is
//! said once in ten seconds and at the end: said before each line, it would itself fill the log.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing::callsite::Identifier;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Target of the lines that must not make room for others: what people who proved who they are have done.
pub const AUDIT: &str = "audit";

/// About 800 lines for each lane: a few seconds of a busy journal. Double would only be more unread lines.
const MAX_WAITING: usize = 256 * 1024;
/// Warnings from one place in the code. Twenty show the fault. A caller who can cause them at will must not
/// push everything else out of a console of 64 KiB.
const AT_ONCE: u32 = 20;
const THEN_ONE_EACH: Duration = Duration::from_secs(60);
/// Between two notices of how many warnings were left out.
const BETWEEN_NOTICES: Duration = Duration::from_secs(10);
/// At the end of the program. A reader that is there takes milliseconds.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The writing thread. When dropped, it writes the waiting lines and ends.
#[must_use = "lines are written as long as it is kept"]
pub struct LogThread {
    lanes: Arc<Lanes>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Lanes {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    reserved: Lane,
    ordinary: Lane,
    allowances: HashMap<Identifier, Allowance>,
    left_out: u64,
    left_out_said: Option<Instant>,
    is_over: bool,
    has_ended: bool,
}

#[derive(Default)]
struct Lane {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
}

/// What one place in the code may still say.
struct Allowance {
    lines: u32,
    since: Instant,
}

/// Where the subscriber writes to.
#[derive(Clone)]
pub(super) struct Lines(Arc<Lanes>);

/// One line, handed over when dropped.
pub(super) struct Line {
    lanes: Option<Arc<Lanes>>,
    is_reserved: bool,
    bytes: Vec<u8>,
}

/// Starts the thread. `notice` makes a line of a sentence.
pub(super) fn start(
    out: impl Write + Send + 'static,
    notice: impl Fn(&str) -> String + Send + 'static,
) -> io::Result<(Lines, LogThread)> {
    let lanes = Arc::new(Lanes::default());
    let writing = Arc::clone(&lanes);
    let thread = std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || writing.write_until_over(out, notice))?;
    Ok((Lines(Arc::clone(&lanes)), LogThread { lanes, thread: Some(thread) }))
}

impl Lanes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn write_until_over(&self, mut out: impl Write, notice: impl Fn(&str) -> String) {
        loop {
            let (batch, is_over) = {
                let mut state = self.state();
                self.changed.wait_while(&mut state, |state| !state.has_something() && !state.is_over);
                (state.take(&notice, Instant::now()), state.is_over)
            };
            // The reader may have gone for good, and there is no other place to report that.
            let _unread = out.write_all(&batch).and_then(|()| out.flush());
            if is_over && batch.is_empty() {
                self.state().has_ended = true;
                self.changed.notify_all();
                return;
            }
        }
    }
}

impl State {
    fn has_something(&self) -> bool {
        !self.reserved.lines.is_empty() || !self.ordinary.lines.is_empty()
    }

    /// Takes the next lines to write: small pieces, so that the reserved lane is never far behind.
    fn take(&mut self, notice: &impl Fn(&str) -> String, now: Instant) -> Vec<u8> {
        let mut batch = Vec::new();
        let dropped =
            [std::mem::take(&mut self.reserved.dropped), std::mem::take(&mut self.ordinary.dropped)];
        if dropped != [0, 0] {
            let [audit, others] = dropped;
            let text = format!(
                "{} log lines were dropped, {audit} of them audit lines, because the log was not read",
                audit + others
            );
            batch.extend(notice(&text).into_bytes());
        }
        let is_due = self.left_out_said.is_none_or(|said| now.duration_since(said) >= BETWEEN_NOTICES);
        if self.left_out > 0 && (is_due || self.is_over) {
            let text = format!("{} warnings were left out, because they repeat others", self.left_out);
            batch.extend(notice(&text).into_bytes());
            self.left_out = 0;
            self.left_out_said = Some(now);
        }
        let lane = if self.reserved.lines.is_empty() { &mut self.ordinary } else { &mut self.reserved };
        while batch.len() < 4096
            && let Some(line) = lane.lines.pop_front()
        {
            lane.bytes -= line.len();
            batch.extend(line);
        }
        batch
    }

    /// Whether this place in the code may say something now.
    fn allows(&mut self, place: Identifier, now: Instant) -> bool {
        let allowance = self.allowances.entry(place).or_insert_with(|| Allowance::new(now));
        let is_allowed = allowance.take(now);
        self.left_out += u64::from(!is_allowed);
        is_allowed
    }
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { lines: AT_ONCE, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let earned = now.duration_since(self.since).as_secs() / THEN_ONE_EACH.as_secs();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.lines = self.lines.saturating_add(earned).min(AT_ONCE);
            self.since = now;
        }
        let is_left = self.lines > 0;
        self.lines = self.lines.saturating_sub(1);
        is_left
    }
}

impl Lane {
    fn push(&mut self, line: Vec<u8>) {
        if self.bytes + line.len() > MAX_WAITING {
            self.dropped += 1;
        } else {
            self.bytes += line.len();
            self.lines.push_back(line);
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { lanes: Some(Arc::clone(&self.0)), is_reserved: false, bytes: Vec::new() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        let is_reserved = meta.target() == AUDIT;
        let is_bounded = !is_reserved && *meta.level() <= Level::WARN;
        let is_said = !is_bounded || self.0.state().allows(meta.callsite(), Instant::now());
        Line { lanes: is_said.then(|| Arc::clone(&self.0)), is_reserved, bytes: Vec::new() }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.lanes.is_some() {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(lanes) = self.lanes.take() else { return };
        let line = std::mem::take(&mut self.bytes);
        let mut state = lanes.state();
        if self.is_reserved {
            state.reserved.push(line)
        } else {
            state.ordinary.push(line)
        }
        drop(state);
        lanes.changed.notify_all();
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        let mut state = self.lanes.state();
        state.is_over = true;
        self.lanes.changed.notify_all();
        self.lanes.changed.wait_while_for(&mut state, |state| !state.has_ended, LAST_WORDS);
        let has_ended = state.has_ended;
        drop(state);
        // A thread that cannot write ends with the process.
        if has_ended && let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use tracing_subscriber::EnvFilter;

    use super::*;

    /// A log that is read when the test says so.
    struct Pipe {
        may_write: Receiver<()>,
        written: Sender<String>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.may_write.recv().map_err(io::Error::other)?;
            self.written.send(String::from_utf8_lossy(bytes).into_owned()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Log {
        read: Sender<()>,
        written: Receiver<String>,
        thread: LogThread,
    }

    /// Returns the whole log, after `speak` has written to it while it was unread.
    fn unread(speak: impl FnOnce()) -> String {
        let ((read, may_write), (written, lines)) = (channel(), channel());
        let notice = |text: &str| format!("notice: {text}\n");
        let (lines_in, thread) = start(Pipe { may_write, written }, notice).expect("a thread");
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("debug"))
            .with_ansi(false)
            .with_writer(lines_in)
            .finish();
        // The log is not read during this call; that the call returns is the point.
        tracing::subscriber::with_default(subscriber, speak);
        let log = Log { read, written: lines, thread };
        log.thread.lanes.state().is_over = true;
        // More than there can be.
        for _ in 0..10_000 {
            let _sent = log.read.send(());
        }
        log.written.iter().collect()
    }

    #[test]
    fn an_unread_log_holds_nobody_up_and_says_what_it_dropped() {
        let text = unread(|| {
            for number in 0..10_000 {
                tracing::debug!(number, "{}", "x".repeat(100));
            }
        });
        let dropped = text.lines().find_map(|line| line.strip_prefix("notice: ")).expect("a notice");
        let dropped: usize = dropped.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
        let said = text.lines().filter(|line| line.contains("xxx")).count();
        assert_eq!(said + dropped, 10_000);
        assert!(said > 1_000, "{said}");
    }

    #[test]
    fn other_lines_take_no_room_of_audit_lines() {
        let text = unread(|| {
            for number in 0..10_000 {
                tracing::debug!(number, "{}", "x".repeat(100));
                if number % 100 == 0 {
                    tracing::info!(target: AUDIT, number, "a user signed in");
                }
            }
        });
        assert_eq!(text.matches("a user signed in").count(), 100);
        assert!(text.contains("0 of them audit lines"), "{text:.500}");
    }

    #[test]
    fn a_warning_that_repeats_is_left_out_and_counted() {
        let text = unread(|| {
            for number in 0..500 {
                tracing::warn!(number, "a request failed");
                if number % 100 == 0 {
                    tracing::warn!(number, "something else");
                    tracing::info!(number, "business as usual");
                }
            }
        });
        assert_eq!(text.matches("a request failed").count(), 20);
        assert_eq!(text.matches("something else").count(), 5);
        assert_eq!(text.matches("business as usual").count(), 5);
        // How many notices there are depends on when the thread began to write.
        let notices = text.lines().filter_map(|line| line.strip_prefix("notice: "));
        let counts = notices.filter_map(|notice| notice.split(' ').next()?.parse::<u64>().ok());
        assert_eq!(counts.sum::<u64>(), 480, "{text}");
    }

    #[test]
    fn what_was_left_out_is_said_once_in_ten_seconds_and_at_the_end() {
        let notice = |text: &str| format!("{text}\n");
        let begin = Instant::now();
        let mut state = State::default();
        let mut said = |millis, is_over| {
            state.left_out += 1;
            state.is_over = is_over;
            String::from_utf8(state.take(&notice, begin + Duration::from_millis(millis))).expect("text")
        };
        let each = [(0, false), (1, false), (9_999, false), (10_000, false), (10_001, false), (10_002, true)];
        let texts = each.map(|(millis, is_over)| said(millis, is_over));
        let counts = texts.each_ref().map(|text| text.split(' ').next().unwrap_or_default());
        assert_eq!(counts, ["1", "", "", "3", "", "2"]);
    }

    #[test]
    fn a_place_in_the_code_may_speak_again_after_a_minute() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        let mut said = |seconds| {
            let now = now + Duration::from_secs(seconds);
            (0..100).filter(|_| allowance.take(now)).count()
        };
        assert_eq!([0, 59, 125, 90_000].map(&mut said), [20, 0, 2, 20]);
    }
}
