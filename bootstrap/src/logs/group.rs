//! The log group of the reconciler's function.

use std::collections::BTreeSet;

use aws_sdk_cloudwatchlogs::types::FilteredLogEvent;
use jiff::{SignedDuration, Timestamp};

use crate::aws::Aws;
use crate::error::{Result, Step as _, found};

/// CloudWatch stores events some seconds late, and in any order.
const LATE: SignedDuration = SignedDuration::from_secs(60);
/// A page has at most a megabyte or 10,000 events, and may be empty. The reconciler writes about 30 events a
/// minute, so these pages hold more than its 14 days.
const MOST_PAGES: usize = 200;
/// Most lines of one look; the newest are kept. They take a few megabytes.
const MOST_LINES: usize = 20_000;

/// How far the log has been printed.
pub(super) struct Group {
    from: Timestamp,
    seen: BTreeSet<(i64, String)>,
    /// Keeps events of one millisecond in the order in which they came.
    number: u64,
}

impl Group {
    pub(super) fn since(from: Timestamp) -> Self {
        Self { from, seen: BTreeSet::new(), number: 0 }
    }

    /// Returns the lines added since the last look, oldest first; none if the group does not exist yet.
    pub(super) async fn read(&mut self, aws: &Aws) -> Result<Vec<String>> {
        let group = aws.names.stack.log_group();
        let mut pages = aws
            .logs
            .filter_log_events()
            .log_group_name(&group)
            .start_time(self.from.as_millisecond())
            .into_paginator()
            .send();
        let mut events = Vec::new();
        for _ in 0..MOST_PAGES {
            let Some(page) = pages.next().await else { break };
            let Some(page) = found(page.step(|| format!("read the log {group}")))? else { break };
            events.extend(self.fresh(page.events()));
            // The oldest go first.
            events.sort();
            events.drain(..events.len().saturating_sub(MOST_LINES));
        }
        Ok(events.into_iter().map(|(_, _, line)| line).collect())
    }

    /// Returns time, number and text of events not seen before.
    fn fresh(&mut self, events: &[FilteredLogEvent]) -> Vec<(i64, u64, String)> {
        let mut fresh = Vec::new();
        for event in events {
            let at = event.timestamp().unwrap_or_default();
            let text = event.message().unwrap_or_default().trim_end();
            let id = event
                .event_id()
                .map_or_else(|| format!("{text} {}", event.log_stream_name().unwrap_or("")), str::to_owned);
            if self.seen.insert((at, id)) && !text.is_empty() {
                self.number += 1;
                fresh.push((at, self.number, text.to_owned()));
            }
        }
        if let Some((newest, _)) = self.seen.last() {
            let newest = Timestamp::from_millisecond(*newest).unwrap_or(self.from);
            self.from = self.from.max(newest - LATE);
            let from = self.from.as_millisecond();
            self.seen.retain(|(at, _)| *at >= from);
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, at: i64) -> FilteredLogEvent {
        FilteredLogEvent::builder().event_id(id).timestamp(at).message(format!("{id}\n")).build()
    }

    fn texts(group: &mut Group, events: &[FilteredLogEvent]) -> Vec<String> {
        group.fresh(events).into_iter().map(|(_, _, text)| text).collect()
    }

    #[test]
    fn each_event_is_shown_once_and_late_ones_too() {
        let mut group = Group::since(Timestamp::UNIX_EPOCH);
        assert_eq!(texts(&mut group, &[event("a", 100_000), event("b", 101_000)]), ["a", "b"]);
        assert_eq!(
            texts(&mut group, &[event("a", 100_000), event("late", 100_500), event("b", 101_000)]),
            ["late"]
        );
        assert!(
            texts(&mut group, &[event("a", 100_000), event("late", 100_500), event("b", 101_000)]).is_empty()
        );
    }

    #[test]
    fn the_remembered_events_stay_bounded() {
        let mut group = Group::since(Timestamp::UNIX_EPOCH);
        for number in 0..1000 {
            group.fresh(&[event(&number.to_string(), number * 1000)]);
        }
        assert_eq!(group.from.as_second(), 939);
        assert_eq!(group.seen.len(), 61);
    }
}
