//! The properties that are asked a thousand times in each run: `tests/properties.txt`, and never fewer than 22.
// covers: ASR-2

#![allow(missing_docs, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;
use std::path::Path;

/// What is asked for is twenty; the list may lose a few before that is too few.
const LEAST: usize = 22;

/// The properties of a file and their cases, as its `proptest!` blocks say; 0 where they do not.
fn properties(text: &str) -> BTreeMap<String, u32> {
    let thousand = text.contains("fn thousand()") && text.contains("cases: 1000,");
    let (mut found, mut cases, mut indent, mut inside, mut test) = (BTreeMap::new(), 0, 0, false, false);
    for line in text.lines() {
        if line.trim() == "proptest! {" {
            (inside, cases, indent) = (true, 0, line.len() - "proptest! {".len());
        } else if inside && line.len() == indent + 1 && line.ends_with('}') {
            inside = false;
        } else if inside && line.contains("#![proptest_config(") {
            let number = line.split_once("with_cases(").or_else(|| line.split_once("cases: ")).map(|(_, rest)| rest);
            let digits = number.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
            cases = match digits {
                Some(digits) => digits.parse().unwrap_or(0),
                None if thousand && line.contains("thousand()") => 1000,
                None => 0,
            };
        } else if inside && line.trim() == "#[test]" {
            test = true;
        } else if test && let Some(rest) = line.trim().strip_prefix("fn ") {
            found.insert(rest.split('(').next().unwrap().to_owned(), cases);
            test = false;
        }
    }
    found
}

fn files(folder: &Path, out: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("tests/fuzz") {
            files(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn every_property_is_listed_and_there_are_enough() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    files(&root.join("src"), &mut paths);
    files(&root.join("tests"), &mut paths);
    paths.sort();
    let (mut list, mut many) = (String::new(), 0);
    for path in paths.iter().filter(|path| !path.ends_with("properties_list.rs")) {
        let name = path.strip_prefix(root).unwrap().display();
        for (property, cases) in properties(&std::fs::read_to_string(path).unwrap()) {
            list.push_str(&format!("{name}\t{property}\t{cases}\n"));
            many += usize::from(cases >= 1000);
        }
    }
    if std::env::var_os("VRAM_RESIDENCY_WRITE_LIST").is_some() {
        std::fs::write(root.join("tests/properties.txt"), &list).unwrap();
    }
    let committed = std::fs::read_to_string(root.join("tests/properties.txt")).unwrap();
    assert!(list == committed, "run this test with VRAM_RESIDENCY_WRITE_LIST=1 and look at the difference:\n{list}");
    assert!(many >= LEAST, "{many} properties of a thousand cases; {LEAST} are wanted");
}

#[test]
fn what_is_asked_less_often_does_not_count() {
    let planted = "proptest! {\n    #![proptest_config(ProptestConfig::with_cases(48))]\n\n    #[test]\n    fn a(x in 0..1) {\n    }\n}\n\
                   proptest! {\n    #![proptest_config(other())]\n    #[test]\n    fn b(x in 0..1) {\n    }\n}\n\
                   proptest! {\n    #![proptest_config(ProptestConfig { cases: 1000, ..d() })]\n    #[test]\n    fn c(\n    ) {\n    }\n}\n\
                   #[test]\nfn d() {\n}\n";
    let found: Vec<(String, u32)> = properties(planted).into_iter().collect();
    assert_eq!(found, [("a".to_owned(), 48), ("b".to_owned(), 0), ("c".to_owned(), 1000)]);
}
