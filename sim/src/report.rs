//! The results of a run, in lines that scripts can read as well.

use fleet::Policy;

use crate::clock::SECOND;
use crate::fault::Kind;
use crate::output::{line, quantiles};
use crate::run::Total;

pub fn total(total: &Total, threads: usize) {
    line("faults injected");
    for kind in Kind::ALL {
        line(&format!("  {:<34} {:>10}", kind.name(), total.faults[*kind as usize]));
    }
    line(&format!("  {:<34} {:>10}", "all", total.faults.iter().sum::<u64>()));
    let stats = &total.stats;
    line(&format!("ticks          {}", stats.ticks));
    line(&format!("invocations    {}", stats.invocations));
    line(&format!("launches       {}", stats.launches));
    line(&format!("terminations   {}", stats.terminations));
    line(&format!("address moves  {}", stats.moves));
    line(&format!("recoveries     {}", quantiles(&stats.recoveries)));
    line(&format!("trace hash     {:016x}", total.hash));
    let seconds = total.elapsed.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let core_hours = seconds * threads as f64 / 3600.0;
    line(&format!(
        "took           {seconds:.1} s on {threads} threads, {:.0} simulated years per core-hour",
        total.years() / core_hours
    ));
    for (seed, violation) in total.violations.iter().take(20) {
        line(&format!(
            "violation      seed {seed}, {} at {} s: {}",
            violation.rule,
            violation.at / SECOND,
            violation.what
        ));
    }
    line(&format!(
        "{} seeds, {:.2} simulated years, {} violations",
        total.seeds,
        total.years(),
        total.violations.len()
    ));
}

/// Returns the fields of the policy as a table.
pub fn policy() -> String {
    let mut table = "| number | default | bounds | reason |\n|---|---|---|---|".to_owned();
    for field in Policy::fields() {
        let reason = field.reason.replace('\n', " ");
        let row = format!("\n| `{}` | {} | {} | {} |", field.name, field.default, field.bounds, reason);
        table.push_str(&row.replace("  ", " "));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes the table into `docs/policy.md` if `VIGIA_UPDATE_TABLES` is set.
    #[test]
    fn the_table_of_the_policy_document_is_that_of_the_code() {
        let document = include_str!("../../docs/policy.md");
        let (before, rest) = document.split_once("| number |").expect("the head of the table");
        let end = rest.find("\n\n").map_or("\n", |end| &rest[end..]);
        let expected = format!("{before}{}{end}", policy());
        if std::env::var_os("VIGIA_UPDATE_TABLES").is_some() {
            let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md");
            return std::fs::write(file, expected).expect("the document can be written");
        }
        assert_eq!(document, expected, "write it again: VIGIA_UPDATE_TABLES=1 cargo test -p sim table");
    }
}
