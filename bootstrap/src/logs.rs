//! `logs`: prints the logs of reconciler, workers and load balancers, without ssh.
//!
//! | whose | where it is read | how far back |
//! |---|---|---|
//! | the reconciler's | CloudWatch Logs, its function's group | 14 days; 10 minutes if nothing is said |
//! | a worker's, a load balancer's | the console of its instance: the boot, then our unit | the last 64 KiB |
//!
//! EC2 refreshes a console within seconds on Nitro instances, on older ones after minutes. [`format`] says how a line is
//! printed.

mod console;
mod group;
mod event;
mod format;

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_ec2::types::{Instance, InstanceStateName};
use fleet::keys;
use fleet::stack::{ROLE_LB, ROLE_WORKER, TAG_ROLE};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use crate::aws::Aws;
use crate::cli::{Logs, LogsOf, Target};
use crate::error::{DeployError, Exit, Result};
use crate::output;
use crate::resources::{documents, instance};
use crate::scale::no_stack;
use console::Console;
use format::{Format, Terminal};
use group::Group;

/// The default start of the reconciler's log: some thirty ticks.
const SINCE: Duration = Duration::from_secs(10 * 60);
/// Lines of each log, if none is named: three sections fit on a screen or two.
const LINES: usize = 20;
const POLL: Duration = Duration::from_secs(2);
/// Consoles fetched at once; EC2 throttles callers that send faster.
const AT_ONCE: usize = 8;
/// Failed looks in a row before following ends; a minute or two of an AWS that does not answer.
const MOST_FAILURES: u32 = 10;

/// One log, and its lines that are to be printed now.
struct Section {
    source: Source,
    lines: Vec<String>,
}

/// Where a log comes from. Load balancers sort before workers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    /// `reconciler`, or role and id of an instance.
    name: String,
    zone: Option<String>,
}

impl Source {
    fn title(&self) -> String {
        match &self.zone {
            Some(zone) => format!("{} ({zone})", self.name),
            None => self.name.clone(),
        }
    }
}

/// Prints sections, and knows which log was printed last.
struct Printer {
    format: Format,
    last: Option<Source>,
}

/// The watched logs, and how far each has been printed.
struct Watched<'a> {
    aws: &'a Aws,
    options: &'a Logs,
    since: Option<Timestamp>,
    group: Option<Group>,
    consoles: BTreeMap<String, Console>,
}

pub async fn run(target: &Target, options: &Logs) -> Result<()> {
    if options.instance.is_some() && options.of == Some(LogsOf::Reconciler) {
        return Err(DeployError::new(Exit::Usage, "the reconciler is a function and has no instance")
            .hint("Omit --instance, or name a worker or a load balancer (`make status` lists them)."));
    }
    let aws = Aws::connect(target).await?;
    if documents::read(&aws, keys::RELEASE).await?.is_none() {
        return Err(no_stack(&aws));
    }
    let now = Timestamp::now();
    let before = |age: Duration| now - SignedDuration::try_from(age).unwrap_or(SignedDuration::ZERO);
    let is_group_wanted = options.instance.is_none() && options.of.is_none_or(|of| of == LogsOf::Reconciler);
    let mut watched = Watched {
        aws: &aws,
        options,
        since: options.since.map(before),
        group: is_group_wanted.then(|| Group::since(before(options.since.unwrap_or(SINCE)))),
        consoles: BTreeMap::new(),
    };
    let lines = options.lines.or((options.of.is_none() && options.instance.is_none()).then_some(LINES));
    let mut printer = Printer::new(options, now);
    for mut section in watched.look().await? {
        if let Some(most) = lines {
            section.lines.drain(..section.lines.len().saturating_sub(most));
        }
        if section.lines.is_empty() && matches!(printer.format, Format::Terminal(_)) {
            section.lines.push("(nothing yet)".to_owned());
        }
        if !printer.print(&section) {
            return Ok(());
        }
    }
    if options.follow { follow(&mut watched, &mut printer).await } else { Ok(()) }
}

/// Prints new lines until standard output is closed; Ctrl-C ends it like every command.
async fn follow(watched: &mut Watched<'_>, printer: &mut Printer) -> Result<()> {
    let mut failures = 0;
    loop {
        sleep(POLL).await;
        match watched.look().await {
            Ok(sections) => {
                failures = 0;
                for section in sections {
                    if !printer.print(&section) {
                        return Ok(());
                    }
                }
            }
            Err(error) if failures + 1 < MOST_FAILURES => {
                failures += 1;
                output::note(&format!("{}; trying again", error.message()));
            }
            Err(error) => return Err(error),
        }
    }
}

impl Printer {
    fn new(options: &Logs, now: Timestamp) -> Self {
        let format = match !options.json && output::is_terminal() {
            true => {
                Format::Terminal(Terminal { zone: TimeZone::system(), now, has_colour: output::has_colour() })
            }
            false => Format::Json,
        };
        Self { format, last: None }
    }

    /// Prints a section, if it has lines. Returns false if standard output is closed.
    fn print(&mut self, section: &Section) -> bool {
        if section.lines.is_empty() {
            return true;
        }
        let mut lines: Vec<String> =
            section.lines.iter().map(|line| self.format.line(&section.source.name, line)).collect();
        if matches!(self.format, Format::Terminal(_)) && self.last.as_ref() != Some(&section.source) {
            // The title appears when it changes, as in `tail -f`.
            let gap = if self.last.is_some() { "\n" } else { "" };
            lines.insert(0, format!("{gap}==> {} <==", format::printable(&section.source.title())));
            self.last = Some(section.source.clone());
        }
        output::is_read(&lines.join("\n"))
    }
}

impl Watched<'_> {
    /// Returns the lines since the last look.
    async fn look(&mut self) -> Result<Vec<Section>> {
        let mut sections = Vec::new();
        if let Some(group) = &mut self.group {
            let source = Source { name: "reconciler".to_owned(), zone: None };
            sections.push(Section { source, lines: group.read(self.aws).await? });
        }
        let instances = self.instances().await?;
        let aws = self.aws;
        let consoles: Vec<(String, Source, String)> = futures::stream::iter(instances)
            .map(|(id, source)| async move { console::fetch(aws, &id).await.map(|text| (id, source, text)) })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        for (id, source, text) in consoles {
            let console = self.consoles.entry(id).or_default();
            sections.push(Section { source, lines: console.fresh(&text, self.since, self.options.follow) });
        }
        Ok(sections)
    }

    /// Returns ids and sources of the wanted instances, load balancers first.
    async fn instances(&self) -> Result<Vec<(String, Source)>> {
        if self.options.of == Some(LogsOf::Reconciler) {
            return Ok(Vec::new());
        }
        let wanted = |instance: &Instance| {
            let role = instance::tag(instance, TAG_ROLE);
            match self.options.of {
                Some(LogsOf::Worker) => role == Some(ROLE_WORKER),
                Some(LogsOf::Lb) => role == Some(ROLE_LB),
                Some(LogsOf::Reconciler) => false,
                None => true,
            }
        };
        let seen = match &self.options.instance {
            None => instance::list(self.aws, &instance::NOT_GONE).await?,
            Some(id) => {
                let states = [&instance::NOT_GONE[..], &[InstanceStateName::Terminated]].concat();
                let mut all = instance::list(self.aws, &states).await?;
                all.retain(|instance| instance.instance_id() == Some(id));
                if !all.iter().any(wanted) {
                    let what = format!("stack {} has no such instance as {id}", self.aws.names.stack);
                    return Err(DeployError::new(Exit::Failed, what).hint(
                        "`make status` lists the stack's instances. EC2 forgets a terminated instance after \
                            about an hour.",
                    ));
                }
                all
            }
        };
        let mut wanted: Vec<(String, Source)> = seen
            .iter()
            .filter(|instance| wanted(instance))
            .filter_map(|instance| {
                let id = instance.instance_id()?;
                let role = instance::tag(instance, TAG_ROLE).unwrap_or("instance");
                let zone = instance.placement().and_then(|placement| placement.availability_zone());
                Some((id.to_owned(), Source { name: format!("{role} {id}"), zone: zone.map(str::to_owned) }))
            })
            .collect();
        wanted.sort_by(|(_, one), (_, other)| one.cmp(other));
        Ok(wanted)
    }
}
