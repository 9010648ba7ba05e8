//! The report as tables for people.

use std::fmt::Write;
use std::io;
use std::time::Duration;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width};
use vram_residency::DeviceKind;

use super::{Device, Part, Report, Shard, Tensor, Timing};
use crate::output;
use crate::session::MOCK_WARNING;
use crate::stats::{Value, signed_to_f64, to_f64};

/// Models with more tensors than this are shown by their first and last ones.
const MOST_ROWS: usize = 40;
const FIRST_ROWS: usize = 20;
const LAST_ROWS: usize = 10;

/// On terminals narrower than this (pipes of some tools say 0) nothing is wrapped.
const LEAST_COLUMNS: u16 = 60;

/// Shapes of more dimensions than this are shown by their number.
const MOST_DIMENSIONS: usize = 8;
/// On terminals narrower than this the digest stands below the table.
const DIGEST_COLUMNS: u16 = 103;

/// What a UUID takes in a table.
const UUID_COLUMNS: u16 = 42;

/// How many tensors with values that are no finite number are named.
const MOST_NAMES: usize = 5;

/// How much of a tensor's name is shown, in characters.
const NAME_CHARS: usize = 72;

/// Everything that is known, without a newline at the end.
pub(super) fn render(report: &Report, device: &Device, shard: &Shard, complete: bool) -> String {
    let columns = output::columns(io::stdout());
    let mut text = facts(report, device, shard, columns).to_string();
    if !report.tensors.is_empty() {
        text.push('\n');
        text.push_str(&tensors(&report.tensors, columns).to_string());
    }
    text.extend(not_finite(&report.tensors));
    text.push('\n');
    text.push_str(&closing(report, device, complete));
    text
}

/// An empty table for so many columns of a terminal.
pub(crate) fn table(columns: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic).force_no_tty();
    if output::styled(&io::stdout()) {
        table.enforce_styling();
    }
    if let Some(columns) = columns.filter(|columns| *columns >= LEAST_COLUMNS) {
        table.set_width(columns);
    }
    table
}

fn facts(report: &Report, device: &Device, shard: &Shard, columns: Option<u16>) -> String {
    let mut table = table(columns);
    let device_line = format!("{} {}: {}", device.kind, device.ordinal, name(&device.name));
    if device.kind == DeviceKind::Mock {
        let loud = Cell::new(format!("{device_line}\n{MOCK_WARNING}")).fg(Color::Red).add_attribute(Attribute::Bold);
        table.add_row(vec![Cell::new("device"), loud]);
    } else {
        table.add_row(["device", &device_line]);
    }
    table.add_row(["UUID", &device.uuid]);
    table.add_row(["shard", &shard.id]);
    table.add_row(["layout", shard.layout]);
    table.add_row(["origin", shard.origin]);
    // A digest in pieces can be neither compared nor copied.
    let apart = columns.is_some_and(|columns| columns < DIGEST_COLUMNS);
    let digests = [("digest", &shard.digest), ("layout digest", &shard.layout_digest)];
    let digests =
        digests.into_iter().filter_map(|(what, digest)| digest.as_deref().map(|digest| (what.to_owned(), digest)));
    let mut below: Vec<(String, &str)> = digests.collect();
    if !apart {
        for (what, digest) in below.drain(..) {
            table.add_row([what.as_str(), digest]);
        }
    }
    table.add_row(["image", &bytes(shard.bytes)]);
    if report.parts.iter().any(|part| part.file.is_some()) {
        let line = |part: Option<&Part>| {
            let Some(part) = part else {
                return format!("… {} more, --json shows all", report.parts.len().saturating_sub(LAST_ROWS));
            };
            let file = name(part.file.as_deref().unwrap_or_default());
            let digest = if apart { String::new() } else { format!("\n  {}", part.digest) };
            format!("{file}: {}{digest}", bytes(part.bytes))
        };
        let shown = shown_files(&report.parts);
        if apart {
            let digest = |part: &Part| format!("digest of {}", name(part.file.as_deref().unwrap_or_default()));
            below.extend(shown.iter().flatten().map(|part| (digest(part), part.digest.as_str())));
        }
        table.add_row(["files", &shown.into_iter().map(line).collect::<Vec<_>>().join("\n")]);
    } else if let (Some(first), Some(last)) = (report.parts.first(), report.parts.last()) {
        let (count, most) = (report.parts.len(), bytes(first.bytes));
        let line = match count {
            1 => format!("1, {}: {most}", first.id),
            _ => format!("{count}, {} to {}: {most} each, the last {}", first.id, last.id, bytes(last.bytes)),
        };
        table.add_row(["parts", &line]);
    }
    if let Some(timing) = &report.timing {
        table.add_row([
            "sealed in",
            &format!("{}, {}", seconds(timing.seal), speed(shard.bytes, timing.seal.as_secs_f64())),
        ]);
        if let Some(check) = timing.check() {
            let [min, median, max] = [check.min, check.median, check.max].map(|s| seconds(Duration::from_secs_f64(s)));
            let speed = speed(shard.bytes, check.median);
            table.add_row(["check, each execute", &format!("{min} / {median} / {max} (min/median/max), {speed}")]);
        }
        if let Some((check, looked, of)) = timing.part() {
            table.add_row(["looked at", &format!("{check}, {looked} of {of} subtrees")]);
        }
    }
    table.add_row(["executes done", &format!("{} of {}", report.executed, report.executes)]);
    if let Some(vram) = &report.vram {
        table.add_row(["VRAM in all", &bytes(vram.total)]);
        table.add_row(["VRAM used before", &bytes(vram.used_before)]);
        table.add_row(["VRAM used, sealed", &vram.used_sealed.map_or_else(|| "—".to_owned(), bytes)]);
        table.add_row(["VRAM used after release", &bytes(vram.used_after)]);
    }
    if let Some(values) = table.column_mut(1) {
        values.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(UUID_COLUMNS)));
    }
    below.iter().fold(table.to_string(), |text, (what, digest)| format!("{text}\n{what} {digest}"))
}

/// The files of the model, or the first and the last ones; `None` for those that are left out.
fn shown_files(parts: &[Part]) -> Vec<Option<&Part>> {
    if parts.len() <= FIRST_ROWS {
        return parts.iter().map(Some).collect();
    }
    parts.iter().take(LAST_ROWS.saturating_sub(1)).map(Some).chain([None, parts.last()]).collect()
}

fn tensors(tensors: &[Tensor], columns: Option<u16>) -> Table {
    let mut table = table(columns);
    table.set_header(["tensor", "type", "shape", "min", "max", "mean", "NaN"]);
    for column in 3..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if tensors.len() <= MOST_ROWS {
        table.add_rows(tensors.iter().map(row));
        return table;
    }
    let hidden = tensors.len().saturating_sub(FIRST_ROWS).saturating_sub(LAST_ROWS);
    table.add_rows(tensors.iter().take(FIRST_ROWS).map(row));
    table.add_row([format!("… {hidden} more, --json shows all")]);
    table.add_rows(tensors.iter().skip(FIRST_ROWS.saturating_add(hidden)).map(row));
    table
}

/// A line about the tensors that have values which are no finite number, the table shows them or not.
fn not_finite(tensors: &[Tensor]) -> Option<String> {
    let counts = |tensor: &Tensor| (tensor.nan.unwrap_or(0), tensor.inf.unwrap_or(0));
    let odd: Vec<_> = tensors.iter().filter(|tensor| counts(tensor) != (0, 0)).collect();
    let named = odd.iter().take(MOST_NAMES).map(|tensor| {
        let (nan, inf) = counts(tensor);
        format!("{} ({nan} NaN, {inf} infinite)", name(&tensor.name))
    });
    let named = named.collect::<Vec<_>>().join(", ");
    let more = match odd.len().saturating_sub(MOST_NAMES) {
        0 => String::new(),
        more => format!(" and {more} more, --json shows all"),
    };
    let line = format!("\nNaN or infinity in {} of {} tensors: {named}{more}.", odd.len(), tensors.len());
    (!odd.is_empty()).then_some(line)
}

fn row(tensor: &Tensor) -> Vec<String> {
    let shape = match (&tensor.shape, tensor.dimensions) {
        (Some(shape), _) if shape.is_empty() => "scalar".to_owned(),
        (Some(shape), _) if shape.len() > MOST_DIMENSIONS => format!("({} dimensions)", shape.len()),
        (Some(shape), _) => shape.iter().map(u64::to_string).collect::<Vec<_>>().join("×"),
        (None, dimensions) => format!("({} dimensions)", dimensions.unwrap_or_default()),
    };
    let mut cells = vec![name(&tensor.name), name(&tensor.dtype), shape];
    match tensor.nan {
        Some(nan) => {
            cells.extend(
                [tensor.min, tensor.max, tensor.mean].map(|value| value.map_or_else(|| "—".to_owned(), number)),
            );
            cells.push(nan.to_string());
        }
        None => cells.push("not decoded".to_owned()),
    }
    cells
}

/// Foreign text: control characters escaped, the middle left out where it is long.
pub(crate) fn name(text: &str) -> String {
    let escaped: Vec<char> = text.chars().flat_map(char::escape_debug).collect();
    if escaped.len() <= NAME_CHARS {
        return escaped.into_iter().collect();
    }
    let (head, tail) = (NAME_CHARS / 2, (NAME_CHARS / 2).saturating_sub(1));
    let end = escaped.iter().skip(escaped.len().saturating_sub(tail));
    escaped.iter().take(head).chain(&['…']).chain(end).collect()
}

fn number(value: Value) -> String {
    match value {
        Value::Int(value) if value.unsigned_abs() < 1_000_000_000_000 => value.to_string(),
        Value::Int(value) => format!("{:.4e}", signed_to_f64(value)),
        Value::Float(value) if value == 0.0 || (0.001..1e6).contains(&value.abs()) => format!("{value:.5}"),
        Value::Float(value) => format!("{value:.4e}"),
    }
}

fn closing(report: &Report, device: &Device, complete: bool) -> String {
    let mut text = String::new();
    let plural = if report.executed == 1 { "execute" } else { "executes" };
    // Writing to a string cannot fail.
    let part = report.timing.as_ref().and_then(Timing::part);
    let _ = if let Some((check, looked, of)) = part.filter(|_| complete) {
        write!(
            text,
            "{looked} of {of} subtrees, or more, were verified ({check}) before each of {} {plural}.",
            report.executed
        )
    } else if complete {
        write!(text, "Every byte was verified before and after each of {} {plural}.", report.executed)
    } else {
        write!(text, "Not everything was done: {} of {} executes count.", report.executed, report.executes)
    };
    let _ = match &report.vram {
        Some(vram) if vram.used_after == vram.used_before => {
            write!(text, " The shard was wiped and released: {} in use, as before.", bytes(vram.used_after))
        }
        Some(vram) => write!(text, " NOT EVERYTHING WAS RELEASED: {} in use.", bytes(vram.used_after)),
        None => Ok(()),
    };
    if device.kind == DeviceKind::Mock {
        text.push_str(" This was the mock device: it shows how things work and protects nothing.");
    }
    text
}

fn bytes(bytes: u64) -> String {
    let (unit, divisor) = match bytes {
        0..1024 => return format!("{bytes} bytes"),
        1024..0x10_0000 => ("KiB", 1024.0),
        0x10_0000..0x4000_0000 => ("MiB", 1_048_576.0),
        _ => ("GiB", 1_073_741_824.0),
    };
    format!("{:.2} {unit} ({bytes} bytes)", to_f64(bytes) / divisor)
}

pub(crate) fn seconds(took: Duration) -> String {
    let seconds = took.as_secs_f64();
    if seconds >= 1.0 {
        format!("{seconds:.2} s")
    } else if seconds >= 0.001 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{:.1} µs", seconds * 1e6)
    }
}

pub(crate) fn speed(bytes: u64, seconds: f64) -> String {
    if seconds > 0.0 { format!("{:.2} GB/s", to_f64(bytes) / seconds / 1e9) } else { "too short to measure".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_names_are_escaped_and_bounded() {
        // covers: AUD-6
        assert_eq!(name("a\x1b[31m\nb"), "a\\u{1b}[31m\\nb");
        let long = name(&"x".repeat(500));
        assert_eq!(long.chars().count(), NAME_CHARS);
        assert!(long.contains('…'));
    }

    #[test]
    fn many_tensors_are_shown_by_their_ends() {
        let tensor = |n: usize| Tensor {
            name: format!("t{n}"),
            dtype: "F4".to_owned(),
            shape: Some(vec![2, 3]),
            dimensions: None,
            min: None,
            max: None,
            mean: None,
            nan: None,
            inf: None,
        };
        let shown = |count| tensors(&(0..count).map(tensor).collect::<Vec<_>>(), None).to_string();
        assert!(!shown(40).contains("more"));
        let text = shown(100);
        for part in ["t19 ", "t90 ", "t99 ", "… 70 more, --json shows all", "not decoded", "2×3"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("t20 ") && !text.contains("t89 "));
    }

    #[test]
    fn values_that_are_no_finite_number_are_told_of_all_tensors() {
        let tensor = |n: u64| Tensor {
            name: format!("t{n}\u{9b}"),
            dtype: "F32".to_owned(),
            shape: Some(vec![9]),
            dimensions: None,
            min: None,
            max: None,
            mean: None,
            nan: Some(u64::from(n.is_multiple_of(50))),
            inf: Some(n / 50),
        };
        let told = |range: std::ops::Range<u64>| not_finite(&range.map(tensor).collect::<Vec<_>>());
        assert_eq!(told(1..50), None);
        let one = "\nNaN or infinity in 1 of 50 tensors: t0\\u{9b} (1 NaN, 0 infinite).";
        assert_eq!(told(0..50).as_deref(), Some(one));
        let many = told(40..60).unwrap();
        assert!(many.contains("in 10 of 20 tensors: t50\\u{9b} (1 NaN, 1 infinite), t51"), "{many}");
        assert!(many.ends_with("t54\\u{9b} (0 NaN, 1 infinite) and 5 more, --json shows all."), "{many}");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(Value::Float(0.0)), "0.00000");
        assert_eq!(number(Value::Float(-0.06)), "-0.06000");
        assert_eq!(number(Value::Float(1.5e-7)), "1.5000e-7");
        assert_eq!(number(Value::Float(f64::INFINITY)), "inf");
        assert_eq!(number(Value::Int(-12)), "-12");
        assert_eq!(number(Value::Int(i64::MAX.into())), "9.2234e18");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(8 << 20), "8.00 MiB (8388608 bytes)");
        assert_eq!(seconds(Duration::from_micros(1500)), "1.50 ms");
    }
}
