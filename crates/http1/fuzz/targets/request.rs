#![no_main]
#![allow(dead_code, unreachable_pub, reason = "a target uses only a part of the included file")]

use http1 as http;

#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::request(bytes));
