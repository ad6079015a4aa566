//! `completions` and `man`: generated from the command line.

use std::io::Write as _;

use clap::CommandFactory as _;

use crate::cli::{Cli, Shell};
use crate::error::{DeployError, Exit, Result};
use crate::output;

pub fn completions(shell: Shell) -> Result<()> {
    output::result(script(shell).trim_end());
    Ok(())
}

fn script(shell: Shell) -> String {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut command = Cli::command();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "bootstrap", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

pub fn page() -> Result<()> {
    let page = roff()
        .map_err(|error| DeployError::new(Exit::Failed, "cannot write the manual page").caused_by(error))?;
    output::result(page.trim_end());
    Ok(())
}

/// Returns the page of the program, then a section for each command.
fn roff() -> std::io::Result<String> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    let whole = clap_mangen::Man::new(command.clone());
    whole.render_title(&mut page)?;
    whole.render_name_section(&mut page)?;
    whole.render_synopsis_section(&mut page)?;
    whole.render_description_section(&mut page)?;
    whole.render_options_section(&mut page)?;
    for one in command.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help") {
        writeln!(page, ".SH {}", one.get_name().to_uppercase().replace('-', "\\-"))?;
        if let Some(about) = one.get_long_about().or_else(|| one.get_about()) {
            writeln!(page, "{}", escaped(&about.to_string()))?;
        }
        for argument in one.get_arguments().filter(|it| !it.is_hide_set() && !it.is_global_set()) {
            if argument.get_id() == "help" {
                continue;
            }
            writeln!(page, ".TP\n\\fB{}\\fR", escaped(&argument.to_string()))?;
            if let Some(help) = argument.get_long_help().or_else(|| argument.get_help()) {
                writeln!(page, "{}", escaped(&help.to_string()))?;
            }
        }
    }
    whole.render_version_section(&mut page)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// In roff a backslash begins a command, and so does a dot or a quote at the beginning of a line.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let line = |line: &str| {
        if line.is_empty() { ".PP".to_owned() } else { format!("\\&{line}") }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_every_script_and_on_the_page() {
        let page = roff().expect("written");
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
                assert!(script(shell).contains(name), "{name} in {shell:?}");
            }
            let section = format!(".SH {}", name.to_uppercase().replace('-', "\\-"));
            assert!(page.contains(&section), "{section}");
        }
        assert!(page.starts_with(".ie \\n(.g") || page.contains(".TH"), "{}", &page[..200]);
    }

    #[test]
    fn a_line_of_text_is_never_a_command_of_roff() {
        assert_eq!(escaped(".a\n'b\n\n\\c"), "\\&.a\n\\&'b\n.PP\n\\&\\ec");
    }
}
