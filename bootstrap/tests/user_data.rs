//! Checks the user data with its readers: cloud-init's own schema, and systemd's verdict on the unit in it.
//! Where a tool is missing, a test says that it was not run; `make boot-tools` installs both. A real boot is
//! `make boot-test`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use bootstrap::user_data::{Program, cloud_config};
use local_cloud::cloud_config::CloudConfig;

/// systemd-analyze's limit, which it prints as 1.2 today, with room for the next version's stricter rules.
/// The goal is 2.0.
const EXPOSURE_TENTHS: &str = "15";

const PROGRAMS: [&str; 2] = ["ec2-worker", "ec2-lb"];

#[test]
fn user_data_is_what_cloud_init_accepts() {
    if !is_there("cloud-init", "the user data was not held against cloud-init's schema") {
        return;
    }
    for program in PROGRAMS {
        let judged = schema(&user_data(program));
        assert!(judged.status.success(), "{program}: {}", text(&judged));
    }
    let typo = user_data("ec2-worker").replace("permissions:", "permission:");
    let judged = schema(&typo);
    assert!(!judged.status.success(), "cloud-init notices nothing: {}", text(&judged));
}

#[test]
fn the_unit_is_what_systemd_understands() {
    if !is_there("systemd-analyze", "the unit was not verified") {
        return;
    }
    for program in PROGRAMS {
        let machine = Machine::written_by(&user_data(program));
        let judged = machine.analyze(&["verify", "--man=no", "--recursive-errors=no"], program);
        assert!(judged.status.success(), "{program}: {}", text(&judged));
        let with_typo = |unit: String| unit.replace("PrivateUsers=yes", "PrivateUser=yes");
        machine.edit(program, with_typo);
        let judged = machine.analyze(&["verify", "--man=no", "--recursive-errors=no"], program);
        assert!(!judged.status.success(), "systemd notices nothing: {}", text(&judged));
    }
}

#[test]
fn the_unit_exposes_little() {
    if !is_there("systemd-analyze", "the unit's exposure was not judged") {
        return;
    }
    for program in PROGRAMS {
        let machine = Machine::written_by(&user_data(program));
        let threshold = format!("--threshold={EXPOSURE_TENTHS}");
        let judged = machine.analyze(&["security", "--offline=true", "--no-pager", &threshold], program);
        assert!(judged.status.success(), "{program}: {}", text(&judged));
        let said = String::from_utf8_lossy(&judged.stdout).into_owned();
        let score = said.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_default();
        say(score.trim_start_matches(['→', ' ']));
    }
}

fn user_data(program: &str) -> String {
    let settings = vec![
        ("AWS_REGION", "eu-west-1".to_owned()),
        ("VIGIA_STACK", "vigia".to_owned()),
        ("VIGIA_CONTROL_BUCKET", "vigia-vigia-control-123456789012-eu-west-1".to_owned()),
        ("VIGIA_TRUSTED_PROXIES", "10.77.0.0/24,10.77.1.0/24".to_owned()),
    ];
    cloud_config(&Program { name: program, sha256: &"a".repeat(64), settings })
}

/// The files of a machine as the user data writes them, and stand-ins for the unit's programs.
struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn written_by(user_data: &str) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let machine = Self { root };
        let config = CloudConfig::parse(user_data).expect("valid user data");
        for file in &config.write_files {
            machine.write(&file.path, &file.content, file.permissions.as_deref().unwrap_or("0644"));
        }
        for program in ["/bin/sh", "/opt/vigia/ec2-worker", "/opt/vigia/ec2-lb"] {
            machine.write(program, "#!/bin/sh\n", "0755");
        }
        machine
    }

    fn write(&self, path: &str, content: &str, mode: &str) {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().expect("not the root")).expect("writable");
        std::fs::write(&path, content).expect("writable");
        let mode = u32::from_str_radix(mode, 8).expect("octal permissions");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
    }

    fn edit(&self, program: &str, change: impl Fn(String) -> String) {
        let unit = self.unit(program);
        let before = std::fs::read_to_string(&unit).expect("the unit");
        let after = change(before.clone());
        assert_ne!(before, after, "the change is none");
        std::fs::write(&unit, after).expect("writable");
    }

    fn analyze(&self, arguments: &[&str], program: &str) -> Output {
        let (verb, arguments) = arguments.split_first().expect("a verb");
        let mut analyze = Command::new("systemd-analyze");
        analyze.arg(verb).arg("--root").arg(self.root.path()).args(arguments);
        // `verify` wants the file, `security` finds the unit below the root.
        match *verb {
            "verify" => analyze.arg(self.unit(program)),
            _ => analyze.arg(format!("{program}.service")),
        };
        analyze.env("SYSTEMD_COLORS", "0").output().expect("systemd-analyze runs")
    }

    fn unit(&self, program: &str) -> std::path::PathBuf {
        self.at(&format!("/etc/systemd/system/{program}.service"))
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }
}

fn schema(user_data: &str) -> Output {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), user_data).expect("writable");
    let path: &Path = file.path();
    Command::new("cloud-init").args(["schema", "--config-file"]).arg(path).output().expect("cloud-init runs")
}

fn is_there(tool: &str, otherwise: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(tool).exists());
    if !found {
        say(&format!("NOT RUN: there is no {tool}, so {otherwise}; `make boot-tools` installs it"));
    }
    found
}

/// Prints at once and always, even if the test passes.
fn say(line: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "  {line}").ok();
}

fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}{err}", output.status)
}
