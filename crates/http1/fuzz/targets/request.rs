#![no_main]
#![allow(dead_code, unreachable_pub, reason = "a target uses a part of what it includes")]

use http1 as http;

#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::request(bytes));
