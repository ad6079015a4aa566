#![no_main]
#![allow(dead_code, unreachable_pub, reason = "a target uses a part of what it includes")]

// Included rather than linked: with the AWS SDK a fuzzer would take ten minutes to build.
#[path = "../../src/http"]
mod http {
    pub mod chunked;
    pub mod field;
    pub mod framing;
    pub mod head;
    pub mod request;
    pub mod response;
    pub mod target;
}
#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::response(bytes));
