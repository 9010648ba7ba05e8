//! What must not compile: bytes without a check, a check that outlives its scope, a guard that is used twice. Each has a
//! twin that differs in that one thing and compiles.

#![allow(missing_docs, clippy::unwrap_used)]

#[test]
fn weights_cannot_be_reached_without_a_check() {
    // covers: VER-2 VER-12
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/allowed.rs");
    cases.compile_fail("tests/ui/forbidden.rs");
    cases.compile_fail("tests/ui/outlived.rs");
}
