//! The vectors of the specification, read by both decoders.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;

fn repository(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The vector file, as this code writes it.
fn vectors() -> String {
    let middle = SealMessage {
        model_ref: Some(ModelRef::new("llama-8b").unwrap()),
        set: Some(SetPart { set: SetId::from_bytes([0; 16]), index: 0, count: 1 }),
        salt: b"pepper".to_vec(),
        block_size: 1024,
        origin: Origin::Expected,
        ..small()
    };
    let mut text =
        "# Seals, as .specs/30-seal-format.md defines them. Blank lines part the cases; all values are hexadecimal.\n"
            .to_owned();
    for (name, message, secret) in [
        ("the smallest", small(), vec![7; 32]),
        ("a set of one, whose id is zero", middle, (0..=255).collect()),
        ("the largest", large(), vec![0xff; 4096]),
    ] {
        let salt = [0x5a; 32];
        let key = key_of(&secret, salt, message.device_kind, *message.device_uuid.as_bytes());
        let seal = SealedShard::sign(&key, message).unwrap();
        let (message, tag) = (hex::encode(seal.message_bytes()), hex::encode(seal.0.tag.as_bytes()));
        let (secret, salt) = (hex::encode(secret), hex::encode(salt));
        text += &format!("# {name}\nsecret = {secret}\nsalt = {salt}\nmessage = {message}\ntag = {tag}\n\n");
    }
    text.trim_end().to_owned() + "\n"
}

/// What the reference decoder must say of a message.
fn fields(message: &SealMessage) -> serde_json::Value {
    let part = message.set.unwrap_or(SetPart { set: SetId::from_bytes([0; 16]), index: 0, count: 0 });
    serde_json::json!({
        "domain": hex::encode(b"vram-residency/seal\0"),
        "version": 1,
        "device_kind": match message.device_kind { DeviceKind::Cuda => 1, DeviceKind::Mock => 2 },
        "device_uuid": hex::encode(message.device_uuid.as_bytes()),
        "ordinal": message.ordinal,
        "epoch": hex::encode(message.epoch),
        "slot": message.slot,
        "generation": message.generation,
        "worker": hex::encode(message.worker.as_str()),
        "shard": hex::encode(message.shard.as_str()),
        "model_ref": hex::encode(message.model_ref.as_ref().map_or("", ModelRef::as_str)),
        "set_id": hex::encode(part.set.as_bytes()),
        "part_index": part.index,
        "part_count": part.count,
        "layout_digest": hex::encode(message.layout_digest),
        "byte_len": message.byte_len,
        "block_size": message.block_size,
        "salt": hex::encode(&message.salt),
        "digest": hex::encode(message.digest.as_bytes()),
        "origin": match message.origin { Origin::Expected => 1, Origin::Measured => 2 },
        "adopted": u8::from(message.adopted),
        "sealed_at": message.sealed_at,
    })
}

#[test]
fn the_vector_file_is_what_this_code_signs() {
    // covers: SEAL-3
    let (text, written) = (repository("tests/data/seal_vectors.txt"), vectors());
    assert!(text == written, "tests/data/seal_vectors.txt should be:\n{written}");
    let spec = repository(".specs/30-seal-format.md");
    let smallest = text.split("\n\n").next().unwrap().lines().filter(|line| !line.starts_with('#'));
    for line in smallest {
        assert!(spec.contains(line), ".specs/30-seal-format.md lacks {line}");
    }
}

/// Runs after the decoder of the specification: prints the fields of each message, once key and tag agree with Python's own
/// HMAC and a tampered twin does not.
const HARNESS: &str = r##"
import hashlib, hmac, json, sys
mac = lambda key, text: hmac.new(key, text, hashlib.sha256).digest()
for case in sys.stdin.read().split("\n\n"):
    case = dict(line.split(" = ") for line in case.splitlines() if not line.startswith("#"))
    secret, salt, message, tag = (bytes.fromhex(case[name]) for name in ("secret", "salt", "message", "tag"))
    fields = decode(message)
    kind = {1: b"\4cuda", 2: b"\4mock"}[fields["device_kind"]]
    info = b"vram-residency/key\0" + b"\1\0" + b"\4seal" + kind + bytes.fromhex(fields["device_uuid"])
    key = mac(mac(salt, secret), info + b"\1")
    assert hmac.compare_digest(mac(key, message), tag)
    assert not hmac.compare_digest(mac(key, message[:-1] + bytes([message[-1] ^ 1])), tag)
    print(json.dumps(fields))
"##;

#[test]
fn the_decoder_in_the_specification_agrees() {
    // covers: SEAL-3
    let spec = repository(".specs/30-seal-format.md");
    let decoder = spec.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(decoder.lines().count(), 10, "the specification promises a decoder of ten lines");
    let vectors = repository("tests/data/seal_vectors.txt");
    let mut python = Command::new("python3")
        .args(["-I", "-c", &format!("{decoder}\n{HARNESS}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tests need python3");
    python.stdin.take().unwrap().write_all(vectors.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "python3 failed: see above");
    let answers = String::from_utf8(output.stdout).unwrap();

    let mut compared = 0;
    for (case, answer) in vectors.split("\n\n").zip(answers.lines()) {
        let case: BTreeMap<_, _> = case.lines().filter_map(|line| line.split_once(" = ")).collect();
        let message = SealMessage::decode(&hex::decode(case["message"]).unwrap()).unwrap();
        let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
        assert_eq!(answer, fields(&message));
        let (secret, salt) = (hex::decode(case["secret"]).unwrap(), hex::decode(case["salt"]).unwrap());
        let key = key_of(&secret, salt.try_into().unwrap(), message.device_kind, *message.device_uuid.as_bytes());
        let bytes = hex::decode(format!("{}{}", case["message"], case["tag"])).unwrap();
        assert!(SealedShard::from_bytes(&bytes).unwrap().tag_verifies(&key));
        compared += 1;
    }
    assert_eq!((compared, answers.lines().count()), (3, 3));
}
