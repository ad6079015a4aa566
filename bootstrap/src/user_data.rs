//! The user data of an instance: cloud-init's instructions for the first boot.
//!
//! It holds no secret, because every caller who may describe the instance can read it, and names its program
//! by content. The program is fetched by the service itself before each start, so a failed download is tried
//! again by systemd. The fetching script uses only paths relative to its working directory.
//!
//! Every line that begins with `vigia: ` is for the console, on which an operator follows a boot without ssh:
//!
//! ```text
//! fetching --> checksum fits --> starting --> (the program's own lines) --> ended: why
//!    |               |                                                         ^
//!    +- cannot fetch +- does not have the checksum ----------------------------+ again after RestartSec
//! ```

use std::fmt::Write as _;

/// The differences between a worker and a load balancer.
pub struct Program<'a> {
    /// Name of the binary, and of the unit.
    pub name: &'a str,
    pub sha256: &'a str,
    pub settings: Vec<(&'a str, String)>,
}

const FETCH: &str = r#"#!/bin/sh
# Fetches the program that the environment names and refuses it unless its checksum fits.
set -eu
fits() { echo "$VIGIA_SHA256  $1" | sha256sum --check --status; }
if [ -x "$VIGIA_PROGRAM" ] && fits "$VIGIA_PROGRAM"; then
  echo "vigia: starting $VIGIA_PROGRAM"
  exit 0
fi
echo "vigia: fetching $VIGIA_PROGRAM $VIGIA_SHA256"
if ! aws s3 cp --only-show-errors \
  "s3://$VIGIA_CONTROL_BUCKET/artifacts/$VIGIA_SHA256/$VIGIA_PROGRAM" "$VIGIA_PROGRAM.new"; then
  echo "vigia: cannot fetch $VIGIA_PROGRAM; it is tried again" >&2
  exit 1
fi
if ! fits "$VIGIA_PROGRAM.new"; then
  rm -f "$VIGIA_PROGRAM.new"
  echo "vigia: $VIGIA_PROGRAM does not have the checksum $VIGIA_SHA256 and is not run" >&2
  exit 1
fi
chmod 0755 "$VIGIA_PROGRAM.new"
mv "$VIGIA_PROGRAM.new" "$VIGIA_PROGRAM"
echo "vigia: the checksum fits; starting $VIGIA_PROGRAM"
"#;

/// A quarter of a second between a death and the next start. A dead program answers again within two seconds.
/// A program that dies at once is started about once a second, because each start reads it whole.
///
/// The command that reports the exit needs no sandbox (`+`), whose set-up would take as long as the rest. A
/// call that the filter forbids fails with EPERM and does not kill the program, so a library that tries a
/// better call first, and works without it, still works. `/proc` shows only the program itself; it needs no
/// more (`ec2-lb` raises its limit of open files to the one given here by `prlimit64`, which `@resources`
/// does not contain). AF_UNIX is for resolving names. No core is dumped: it would contain passwords.
fn unit(name: &str) -> String {
    format!(
        "[Unit]\n\
         Description=Vigia {name}\n\
         After=network-online.target\n\
         Wants=network-online.target\n\
         StartLimitIntervalSec=0\n\
         [Service]\n\
         EnvironmentFile=/etc/vigia/env\n\
         WorkingDirectory=/opt/vigia\n\
         ExecStartPre=+/opt/vigia/fetch\n\
         ExecStart=/opt/vigia/{name}\n\
         ExecStopPost=+/bin/sh -c 'echo \"vigia: {name} ended: $$SERVICE_RESULT $$EXIT_CODE $$EXIT_STATUS\"'\n\
         Restart=always\n\
         RestartSec=250ms\n\
         TimeoutStopSec=30\n\
         DynamicUser=yes\n\
         StandardOutput=journal+console\n\
         StandardError=journal+console\n\
         LimitNOFILE=1048576\n\
         LimitCORE=0\n\
         NoNewPrivileges=yes\n\
         ProtectSystem=strict\n\
         ProtectHome=yes\n\
         PrivateTmp=yes\n\
         PrivateDevices=yes\n\
         PrivateUsers=yes\n\
         PrivateMounts=yes\n\
         ProtectKernelTunables=yes\n\
         ProtectKernelModules=yes\n\
         ProtectKernelLogs=yes\n\
         ProtectControlGroups=yes\n\
         ProtectClock=yes\n\
         ProtectHostname=yes\n\
         ProtectProc=invisible\n\
         ProcSubset=pid\n\
         RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\n\
         RestrictNamespaces=yes\n\
         RestrictRealtime=yes\n\
         RestrictSUIDSGID=yes\n\
         RemoveIPC=yes\n\
         LockPersonality=yes\n\
         MemoryDenyWriteExecute=yes\n\
         SystemCallArchitectures=native\n\
         SystemCallFilter=@system-service\n\
         SystemCallFilter=~@privileged @resources\n\
         SystemCallErrorNumber=EPERM\n\
         CapabilityBoundingSet=\n\
         UMask=0077\n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

pub fn cloud_config(program: &Program<'_>) -> String {
    let mut env = format!("VIGIA_PROGRAM={}\nVIGIA_SHA256={}\n", program.name, program.sha256);
    for (key, value) in &program.settings {
        writeln!(env, "{key}={value}").expect("writing to a String cannot fail");
    }
    let name = program.name;
    let files = [
        ("/etc/vigia/env".to_owned(), "0644", env),
        ("/opt/vigia/fetch".to_owned(), "0755", FETCH.to_owned()),
        (format!("/etc/systemd/system/{name}.service"), "0644", unit(name)),
    ];
    let mut yaml = String::from("#cloud-config\nwrite_files:\n");
    for (path, mode, content) in files {
        writeln!(yaml, "- path: {path}\n  permissions: '{mode}'\n  content: |").expect("writing to a String");
        for line in content.lines() {
            writeln!(yaml, "    {line}").expect("writing to a String cannot fail");
        }
    }
    writeln!(yaml, "runcmd:\n- [systemctl, daemon-reload]\n- [systemctl, enable, --now, {name}.service]")
        .expect("writing to a String cannot fail");
    yaml
}

/// Returns a setting of the program, from the user data.
pub fn setting<'a>(user_data: &'a str, name: &str) -> Option<&'a str> {
    user_data.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_ec2s_limit_and_names_the_program_by_content() {
        let text = cloud_config(&Program {
            name: "ec2-worker",
            sha256: &"a".repeat(64),
            settings: vec![("VIGIA_STACK", "vigia".to_owned())],
        });
        assert!(text.starts_with("#cloud-config\n"));
        assert!(text.len() < 16 * 1024);
        assert!(text.contains(&format!("    VIGIA_SHA256={}\n", "a".repeat(64))));
        assert!(text.contains("    LimitCORE=0\n"));
        assert_eq!(setting(&text, "VIGIA_STACK"), Some("vigia"));
        assert_eq!(setting(&text, "VIGIA_STAC"), None);
    }
}
