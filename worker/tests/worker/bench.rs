//! `vram-worker bench`: figures beside their peers, a drawing, and nothing left behind.

use std::fs;

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::common::{Files, PARAMS};

const SERIES: [&str; 5] = ["digest", "keyed", "sample:16", "sha2", "read"];

#[test]
fn every_figure_stands_beside_its_peers() {
    let files = Files::new();
    let line = "bench --device mock --sizes 2097152,1MiB,2MiB --runs 1";
    let json = files.json(line);
    let at = |path: &str| json.pointer(path).unwrap_or_else(|| panic!("{path} is missing in {json}"));
    for path in ["/device/kind", "/device/name", "/device/uuid", "/date", "/version", "/build"] {
        assert!(at(path).is_string(), "{path}");
    }
    for path in ["/device/ordinal", "/threads", "/runs", "/one_block/bytes"] {
        assert!(at(path).as_u64().is_some(), "{path}");
    }
    assert!(at("/warning").as_str().unwrap().contains("MOCK DEVICE: all figures are of this machine's processor"));
    assert!(at("/driver").is_null() && at("/date").as_str().unwrap().ends_with('Z'));
    let positive = |path: &str| assert!(at(path).as_f64().unwrap() > 0.0, "{path}");
    ["/one_block/execute_seconds", "/one_block/sha2_seconds"].into_iter().for_each(positive);
    assert_eq!(at("/sizes").as_array().unwrap().len(), 2, "each once, the smallest first");
    for (size, bytes) in [1u64 << 20, 2 << 20].into_iter().enumerate() {
        assert_eq!(at(&format!("/sizes/{size}/bytes")), bytes);
        for (measured, what) in SERIES.iter().enumerate() {
            let at_measured = |field| format!("/sizes/{size}/measured/{measured}/{field}");
            assert_eq!(at(&at_measured("what")), *what);
            [at_measured("seconds"), at_measured("bytes_per_second")].iter().for_each(|path| positive(path));
        }
    }
    let ended = files.call(line).assert_ok();
    for part in SERIES.iter().chain(&["MOCK DEVICE: all figures", "1 MiB", "2 MiB", "GB/s", "medians of 1"]) {
        assert!(ended.text().contains(part), "{part} in {}", ended.text());
    }
}

#[test]
fn the_drawing_has_a_line_for_each_series() {
    let files = Files::new();
    files.call("bench --device mock --sizes 1MiB,2MiB --runs 1 --svg a.svg").assert_ok();
    let names: Vec<_> = fs::read_dir(files.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["a.svg"], "nothing else is left");
    let svg = fs::read_to_string(files.path("a.svg")).unwrap();
    let (mut reader, mut depth, mut points, mut texts) = (Reader::from_str(&svg), 0, Vec::new(), String::new());
    loop {
        match reader.read_event().unwrap() {
            Event::Start(_) => depth += 1,
            Event::End(_) => depth -= 1,
            Event::Empty(element) if element.name().as_ref() == b"polyline" => {
                let attribute = |name| element.try_get_attribute(name).unwrap().unwrap().value.into_owned();
                // Axes are thinner.
                if attribute("stroke-width") == b"2" {
                    points.push(String::from_utf8(attribute("points")).unwrap().split_whitespace().count());
                }
            }
            Event::Text(text) => texts += std::str::from_utf8(&text).unwrap(),
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!((depth, points), (0, vec![2; 2 * SERIES.len()]), "a line and its legend for each");
    for part in SERIES.iter().chain(&["mock device", "MOCK: figures of the CPU", "image, MiB", "GB/s"]) {
        assert!(texts.contains(part), "{part} in {texts}");
    }
}

#[test]
fn what_cannot_be_measured_or_drawn_is_refused_before_anything_is() {
    // covers: VAL-2 ERR-2
    let files = Files::new();
    let sizes = "give sizes from 1MiB to 1GiB: whole numbers of bytes, KiB, MiB or GiB";
    for wrong in ["", "1", "1048575", "1073741825", "2GiB", "1MB", "1 MiB", "-1", "+2MiB", "1MiB,", "99999999999999GiB"]
    {
        let told = files.run(["bench", "--sizes", wrong]);
        told.assert_refused(2, &["--sizes", sizes]);
    }
    let most = "give a whole number from 1 to 4294967295";
    for (line, parts) in [
        ("bench --runs 0", ["--runs", most]),
        ("bench --runs -1", ["--runs", most]),
        ("bench --device gpu", ["--device", "where N is the ordinal"]),
        ("bench --svg absent/a.svg", ["svg", "cannot be written (entity not found); give a file"]),
        ("bench --svg .", ["svg", "cannot be written (it is a folder)"]),
        ("bench model", ["'model'", "unexpected"]),
    ] {
        files.refused(line, 2, PARAMS, &parts);
    }
}
