//! User data as cloud-init reads it: the part of `#cloud-config` that the local cloud carries out.
//!
//! `write_files` writes into the instance's own root directory. Of `runcmd` only `systemctl` is understood: a
//! command that would change this machine must not run here.

use anyhow::{Context as _, bail};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
pub struct CloudConfig {
    #[serde(default)]
    pub write_files: Vec<File>,
    #[serde(default)]
    runcmd: Vec<Command>,
}

#[derive(Debug, Deserialize)]
pub struct File {
    pub path: String,
    #[serde(default)]
    pub content: String,
    /// Octal, as in cloud-init.
    pub permissions: Option<String>,
    /// Only plain text is supported; base64 written undecoded would be a broken file.
    encoding: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Command {
    Argv(Vec<String>),
    Shell(String),
}

/// A command of `runcmd`.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// `systemctl enable --now UNIT`
    EnableNow(String),
    /// Does nothing here: `systemctl daemon-reload`.
    Nothing,
    /// Printed on the console and not run.
    Unknown(String),
}

impl CloudConfig {
    pub fn parse(user_data: &str) -> anyhow::Result<Self> {
        if user_data.lines().next().map(str::trim_end) != Some("#cloud-config") {
            bail!("user data does not start with #cloud-config");
        }
        let config: Self =
            serde_norway::from_str(user_data).context("user data is not valid cloud-config YAML")?;
        for file in &config.write_files {
            if let Some(encoding) = file.encoding.as_deref().filter(|encoding| *encoding != "text/plain") {
                bail!("the local cloud does not know the encoding {encoding} of {}", file.path);
            }
        }
        Ok(config)
    }

    pub fn steps(&self) -> Vec<Step> {
        self.runcmd
            .iter()
            .map(|command| {
                let words: Vec<&str> = match command {
                    Command::Argv(argv) => argv.iter().map(String::as_str).collect(),
                    Command::Shell(line) => line.split_whitespace().collect(),
                };
                match words.as_slice() {
                    ["systemctl", "enable", "--now", unit] => Step::EnableNow((*unit).to_owned()),
                    ["systemctl", "daemon-reload"] => Step::Nothing,
                    other => Step::Unknown(other.join(" ")),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_files_and_commands() {
        let config = CloudConfig::parse(
            "#cloud-config\nwrite_files:\n- path: /etc/a\n  permissions: '0600'\n  content: |\n    x=1\n\
             runcmd:\n- [systemctl, daemon-reload]\n- systemctl enable --now a.service\n- [rm, -rf, /]\n",
        )
        .expect("valid");
        assert_eq!(config.write_files[0].content, "x=1\n");
        assert_eq!(
            config.steps(),
            [Step::Nothing, Step::EnableNow("a.service".to_owned()), Step::Unknown("rm -rf /".to_owned())]
        );
    }

    #[test]
    fn a_script_is_not_cloud_config() {
        assert!(CloudConfig::parse("#!/bin/sh\necho hello\n").is_err());
    }

    #[test]
    fn an_encoded_file_is_not_written_as_it_stands() {
        let config = "#cloud-config\nwrite_files:\n- path: /etc/a\n  encoding: b64\n  content: eA==\n";
        let error = CloudConfig::parse(config).expect_err("refused");
        assert!(error.to_string().contains("b64"), "{error}");
    }
}
