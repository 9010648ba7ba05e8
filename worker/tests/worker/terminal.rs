//! `vram-worker` on a terminal.

use std::fs::{File, OpenOptions};
use std::io::Read;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::common::{Files, safetensors, wait};

/// What the worker shows on a terminal of so many columns, and how it ends.
fn on_terminal(files: &Files, columns: u16, environment: &[(&str, &str)], line: &str) -> (String, Option<i32>) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let inside = OpenOptions::new().read(true).write(true).open(name).unwrap();
    tcsetwinsize(&inside, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let mut command = files.command(line.split(' '));
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
    let code = wait(&mut child).code();
    (shown.join().unwrap(), code)
}

#[test]
fn no_escape_code_where_none_is_wanted() {
    let files = Files::tiny();
    // With a log line of its own.
    let wrong = format!("run tiny.safetensors --device mock --expect sha256:{}", "00".repeat(32));
    let lines = ["run tiny.safetensors --device mock", &wrong, "run --frob", "run --help"];
    let log = ("RUST_LOG", "vram_residency::audit=info");
    for refused in [
        &[("TERM", "xterm"), ("NO_COLOR", "1")][..],
        &[("TERM", "xterm"), ("NO_COLOR", "x"), ("CLICOLOR_FORCE", "1")],
        &[("TERM", "dumb")],
        &[("TERM", "dumb"), ("CLICOLOR", "1"), ("CI", "1")],
        &[],
    ] {
        for line in lines {
            let (shown, _) = on_terminal(&files, 80, &[refused, &[log]].concat(), line);
            assert!(!shown.is_empty() && !shown.contains('\u{1b}'), "{refused:?} {line:?}: {shown:?}");
        }
    }
    // The twin: where they are wanted each has some; an empty NO_COLOR refuses nothing.
    for line in lines {
        let (shown, _) = on_terminal(&files, 80, &[("TERM", "xterm"), ("NO_COLOR", ""), log], line);
        assert!(shown.contains('\u{1b}'), "{line:?}: {shown:?}");
    }
}

#[test]
fn the_digest_is_one_word_on_a_terminal_of_any_width() {
    let files = Files::tiny();
    let digest = files.digest("--layout tensors tiny.safetensors");
    for columns in [0, 20, 60, 79, 80, 100, 101, 200] {
        let (shown, code) = on_terminal(&files, columns, &[("TERM", "dumb")], "run tiny.safetensors --device mock");
        assert_eq!(code, Some(0));
        let line = shown.lines().find(|line| line.contains(&digest)).unwrap_or_else(|| panic!("{columns}: {shown}"));
        let room = usize::from(columns);
        assert!(line.chars().count() <= room || !(80..=200).contains(&room), "{columns}: {line}");
        assert!(shown.contains(" GPU-") && shown.lines().any(|line| line.contains("UUID") && line.contains('-')));
    }
}

#[test]
fn the_help_is_as_wide_as_the_terminal() {
    let files = Files::new();
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
            let (shown, _) = on_terminal(&files, columns, environment, &format!("{command} --help"));
            let several = shown.lines().filter(|line| !line.trim().starts_with('-') && !line.starts_with("Usage:"));
            let wide = |line: &&str| line.split_whitespace().count() > 1;
            let widest = several.filter(wide).map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= most && widest > most / 2, "{columns} {environment:?}: {widest}\n{shown}");
        }
    }
}

#[test]
fn names_are_escaped_wherever_they_are_shown() {
    // covers: VAL-1 AUD-6
    let files = Files::new();
    let hostile = "a\u{9b}31mRED\u{7f}\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\u{200b}\u{e0041}ü";
    let header = format!(r#"{{"{hostile}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
    files.with("m", &safetensors(&header, &f32::NAN.to_le_bytes()));
    let json = files.call("run m --device mock --json");
    assert!(json.stdout.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "{}", json.text());
    assert!(json.text().contains(r"a\u009b31mRED\u007f\u202e\u2066\u200f\u061c\u2028\u200b"), "{}", json.text());
    assert_eq!(json.json()["tensors"][0]["name"], hostile);
    let table = files.call("run m --device mock");
    let unseen =
        |text: &str| text.chars().any(|c| c.is_control() && c != '\n' || hostile.contains(c) && !c.is_alphanumeric());
    assert!(!unseen(table.text()) && table.text().contains("u{9b}"), "{}", table.text());
}
