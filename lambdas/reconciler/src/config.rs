//! Settings of the function, read once at cold start.

use fleet::StackName;
use process::settings::{Reader, SettingsError, Vars};

#[derive(Clone, Debug)]
pub struct Config {
    pub stack: StackName,
    pub control_bucket: String,
}

impl Config {
    pub fn from_vars(vars: &impl Vars) -> Result<Self, SettingsError> {
        let mut reader = Reader::new(vars);
        let stack = reader.required("VIGIA_STACK", "vigia");
        let control_bucket =
            reader.required("VIGIA_CONTROL_BUCKET", "vigia-vigia-control-123456789012-eu-west-1");
        reader.finish(|| Some(Self { stack: stack?, control_bucket: control_bucket? }))
    }
}
