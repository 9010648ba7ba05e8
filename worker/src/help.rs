//! The command line as it is read and shown.
//!
//! Owns the width and the colour of the help, and the exit codes in it. Promises that it fits a terminal of any width.

use std::ffi::OsString;
use std::ops::RangeInclusive;

use clap::{ColorChoice, CommandFactory, FromArgMatches};
use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table};

use crate::cli::Cli;
use crate::output;

/// What every command ends with.
const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "everything was done"),
    (
        "1",
        "anything not listed here; also: standard output is closed, full, or not read any more (`| head -1`, told by nothing else)",
    ),
    ("2", "a wrong option, an unusable setting, an unreadable or malformed model"),
    ("3", "the bytes are not the expected or the sealed ones"),
    ("4", "no such device, the device failed or has no room, or the policy forbids it"),
    (
        "130",
        "ended by SIGINT, 143 by SIGTERM, 129 by SIGHUP: an image that is being sealed or verified is finished, then everything is \
         wiped and released. A second signal ends at once and wipes nothing.",
    ),
];

const DIGEST_EXIT_CODES: &[(&str, &str)] = &[
    ("0", "every digest was printed"),
    ("1", "standard output is closed, full, or not read any more (`| head -1`, told by nothing else)"),
    ("2", "a wrong option, an unreadable or malformed file; the others' digests were printed"),
];

/// How wide the help is at least and at most, in columns.
const COLUMNS: RangeInclusive<usize> = 30..=110;

/// Takes the arguments of the process.
pub(crate) fn parse(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Cli, clap::Error> {
    let mut command = command(columns());
    let matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// The command line, with a help of so many columns.
fn command(columns: usize) -> clap::Command {
    let colour = if output::escapes() { ColorChoice::Auto } else { ColorChoice::Never };
    Cli::command()
        .color(colour)
        .term_width(columns)
        .after_help(exit_codes(EXIT_CODES, columns))
        .mut_subcommand("run", |run| run.after_help(exit_codes(EXIT_CODES, columns)))
        .mut_subcommand("bench", |bench| bench.after_help(exit_codes(EXIT_CODES, columns)))
        .mut_subcommand("digest", |digest| digest.after_help(exit_codes(DIGEST_EXIT_CODES, columns)))
}

/// How wide the help is: as the terminal, else as `COLUMNS` says, if that is a width.
fn columns() -> usize {
    use rustix::stdio::{stderr, stdin, stdout};
    let terminal = [stdout(), stderr(), stdin()].into_iter().filter_map(output::columns).find(|columns| *columns > 0);
    let asked = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|columns| *columns > 0);
    terminal.map(usize::from).or_else(asked).unwrap_or(100).clamp(*COLUMNS.start(), *COLUMNS.end())
}

/// The exit codes as a list in which a line that is wrapped stays beside its code.
fn exit_codes(codes: &[(&str, &str)], columns: usize) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .force_no_tty()
        .set_width(columns.try_into().unwrap_or(u16::MAX))
        .add_rows(codes.iter().map(|(code, meaning)| [code, meaning]));
    for column in table.column_iter_mut() {
        column.set_padding((2, 0));
    }
    if let Some(code) = table.column_mut(0) {
        code.set_constraint(ColumnConstraint::ContentWidth);
    }
    table.lines().fold("Exit codes:".to_owned(), |text, line| format!("{text}\n{}", line.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command(80).debug_assert();
    }

    #[test]
    fn the_help_fits_any_width() {
        // covers: ERR-2
        for columns in [30, 34, 40, 60, 80, 110] {
            for (name, codes) in [("run", EXIT_CODES), ("digest", DIGEST_EXIT_CODES), ("bench", EXIT_CODES)] {
                let mut command = command(columns);
                command.build();
                let help = command.find_subcommand_mut(name).unwrap().render_long_help().to_string();
                for line in help.lines().filter(|line| line.chars().count() > columns) {
                    let words = line.split_whitespace().count();
                    assert!(
                        words == 1 || line.starts_with("Usage:") || line.trim().starts_with('-'),
                        "{columns}: {line:?}"
                    );
                }
                // Whatever is wrapped stands beside its code.
                let list = help.split_once("Exit codes:\n").unwrap().1;
                let starts = |code: &str| list.lines().any(|line| line.starts_with(&format!("  {code} ")));
                assert!(codes.iter().all(|(code, _)| starts(code)), "{columns}: {list}");
                let indent = 4 + codes.iter().map(|(code, _)| code.len()).max().unwrap();
                let meanings: Vec<_> = list.lines().map(|line| line.get(indent..).unwrap()).collect();
                assert!(
                    meanings.iter().all(|text| !text.starts_with(' ') && !text.ends_with(' ')),
                    "{columns}: {list}"
                );
                let told = codes.iter().map(|(_, meaning)| *meaning).collect::<Vec<_>>().join(" ");
                assert_eq!(meanings.join(" "), told, "{columns}");
            }
        }
    }
}
