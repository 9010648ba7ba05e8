//! `vram-worker` on a terminal, and without a standard output.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail loudly"
)]

mod common;

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::Command;

use common::{Files, model, safetensors, worker};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// What the worker shows on a terminal of so many columns, and how it ends.
fn on_terminal(columns: u16, environment: &[(&str, &str)], arguments: &[&str]) -> (String, Option<i32>) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let inside = OpenOptions::new().read(true).write(true).open(name).unwrap();
    tcsetwinsize(&inside, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let mut command = common::command(arguments);
    for name in ["NO_COLOR", "TERM", "COLUMNS", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    command.stdin(inside.try_clone().unwrap()).stdout(inside.try_clone().unwrap()).stderr(inside);
    let mut child = command.spawn().unwrap();
    drop(command); // and with it this process's ends of the terminal
    let shown = std::thread::spawn(move || {
        let (mut terminal, mut shown, mut piece) = (File::from(terminal), Vec::new(), [0; 4096]);
        // A terminal whose last program has ended gives an error.
        while let Ok(bytes @ 1..) = terminal.read(&mut piece) {
            shown.extend_from_slice(&piece[..bytes]);
        }
        String::from_utf8(shown).unwrap().replace("\r\n", "\n")
    });
    let code = common::wait(&mut child).code();
    (shown.join().unwrap(), code)
}

#[test]
fn no_escape_code_where_none_is_wanted() {
    let files = Files::new();
    let path = files.with("model.safetensors", &model());
    let wrong = format!("sha256:{}", "00".repeat(32));
    let path = path.to_str().unwrap();
    let lines = [
        &["run", path, "--device", "mock"][..],
        &["run", path, "--device", "mock", "--expect", &wrong], // with a log line of its own
        &["run", "--frob"],
        &["run", "--help"],
    ];
    let log = ("RUST_LOG", "vram_residency::audit=info");
    for refused in [
        &[("TERM", "xterm"), ("NO_COLOR", "1")][..],
        &[("TERM", "xterm"), ("NO_COLOR", "x"), ("CLICOLOR_FORCE", "1")],
        &[("TERM", "dumb")],
        &[("TERM", "dumb"), ("CLICOLOR", "1"), ("CI", "1")],
        &[],
    ] {
        for line in lines {
            let (shown, _) = on_terminal(80, &[refused, &[log]].concat(), line);
            assert!(!shown.is_empty() && !shown.contains('\u{1b}'), "{refused:?} {line:?}: {shown:?}");
        }
    }
    // The twin: where they are wanted each has some; an empty NO_COLOR refuses nothing.
    for line in lines {
        let (shown, _) = on_terminal(80, &[("TERM", "xterm"), ("NO_COLOR", ""), log], line);
        assert!(shown.contains('\u{1b}'), "{line:?}: {shown:?}");
    }
}

#[test]
fn the_digest_is_one_word_on_a_terminal_of_any_width() {
    let files = Files::new();
    let path = files.with("model.safetensors", &model());
    let path = path.to_str().unwrap();
    let told = worker(["digest", "--layout", "tensors", path]);
    let digest = told.text().split_once(' ').unwrap().0.to_owned();
    for columns in [0, 20, 60, 79, 80, 100, 101, 200] {
        let (shown, code) = on_terminal(columns, &[("TERM", "dumb")], &["run", path, "--device", "mock"]);
        assert_eq!(code, Some(0));
        let line = shown.lines().find(|line| line.contains(&digest)).unwrap_or_else(|| panic!("{columns}: {shown}"));
        let room = usize::from(columns);
        assert!(line.chars().count() <= room || !(80..=200).contains(&room), "{columns}: {line}");
        assert!(shown.contains(" GPU-") && shown.lines().any(|line| line.contains("UUID") && line.contains('-')));
    }
}

#[test]
fn the_help_is_as_wide_as_the_terminal() {
    for (columns, environment, most) in [
        (40, &[][..], 40),
        (80, &[], 80),
        (300, &[], 110),
        (0, &[("COLUMNS", "50")], 50),
        (0, &[("COLUMNS", "0")], 100),
        (0, &[("COLUMNS", "wide")], 100),
        (1, &[], 30),
    ] {
        for command in ["run", "digest"] {
            let (shown, _) = on_terminal(columns, environment, &[command, "--help"]);
            let several = shown.lines().filter(|line| !line.trim().starts_with('-') && !line.starts_with("Usage:"));
            let wide = |line: &&str| line.split_whitespace().count() > 1;
            let widest = several.filter(wide).map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= most && widest > most / 2, "{columns} {environment:?}: {widest}\n{shown}");
        }
    }
}

#[test]
fn a_standard_output_that_is_closed_is_an_error() {
    // covers: ERR-2
    let files = Files::new();
    let path = files.with("model.safetensors", &model());
    let path = path.to_str().unwrap();
    for arguments in [
        &["digest", path][..],
        &["run", path, "--device", "mock"],
        &["run", path, "--device", "mock", "--json"],
        &["--help"],
        &["--version"],
    ] {
        let run = |redirected: &str| {
            let script = format!("exec \"$0\" \"$@\" {redirected}");
            let worker = env!("CARGO_BIN_EXE_vram-worker");
            Command::new("sh").args(["-c", &script, worker]).args(arguments).output().unwrap()
        };
        for redirected in [">&-", ">/dev/full"] {
            let ended = run(redirected);
            let told = String::from_utf8(ended.stderr).unwrap();
            assert_eq!(ended.status.code(), Some(1), "{arguments:?} {redirected}: {told}");
            assert!(told.contains("error: writing to standard output failed"), "{told}");
        }
        // The twins: whoever throws it away took it, however that is opened.
        for redirected in [">/dev/null", "1<>/dev/null", ">/dev/null 2>&-", "<&- >/dev/null"] {
            assert_eq!(run(redirected).status.code(), Some(0), "{arguments:?} {redirected}");
        }
    }
}

#[test]
fn names_are_escaped_wherever_they_are_shown() {
    // covers: VAL-1 AUD-6
    let files = Files::new();
    let hostile = "a\u{9b}31mRED\u{7f}\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\u{200b}\u{e0041}ü";
    let header = format!(r#"{{"{hostile}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    let path = files.with("model.safetensors", &safetensors(&header, &f32::NAN.to_le_bytes()));
    let path = path.to_str().unwrap();
    let json = worker(["run", path, "--device", "mock", "--json"]);
    assert!(json.stdout.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "{}", json.text());
    assert!(json.text().contains(r"a\u009b31mRED\u007f\u202e\u2066\u200f\u061c\u2028\u200b"), "{}", json.text());
    assert_eq!(json.json()["tensors"][0]["name"], hostile);
    let table = worker(["run", path, "--device", "mock"]);
    let unseen =
        |text: &str| text.chars().any(|c| c.is_control() && c != '\n' || hostile.contains(c) && !c.is_alphanumeric());
    assert!(!unseen(table.text()) && table.text().contains("u{9b}"), "{}", table.text());
}
