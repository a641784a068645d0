use serde_json::{Value, json};

use super::*;
use crate::report::sample;

fn rendered(snapshot: &Snapshot, host: &HostFacts) -> Value {
    let text = Report::new(snapshot, host, &sample::clock()).to_json().expect("serialises");
    serde_json::from_str(&text).expect("is JSON")
}

fn schema() -> Value {
    serde_json::from_str(SCHEMA).expect("the schema is JSON")
}

fn validator(schema: &Value) -> jsonschema::Validator {
    jsonschema::draft202012::new(schema).expect("the schema is a schema")
}

#[test]
fn the_schema_is_a_valid_2020_12_schema() {
    assert!(jsonschema::draft202012::meta::is_valid(&schema()));
}

#[test]
fn every_sample_keeps_the_contract() {
    let validator = validator(&schema());
    for (name, snapshot, host) in sample::all() {
        let report = rendered(&snapshot, &host);
        let errors: Vec<_> =
            validator.iter_errors(&report).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}");
    }
}

/// Keys of these are data, not fields.
const MAPS: [&str; 3] = ["failed", "by_state", "evidence"];

/// Pointers to all fields below `value`.
fn fields(value: &Value, path: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let path = format!("{path}/{key}");
                if !MAPS.contains(&key.as_str()) {
                    fields(inner, &path, out);
                }
                out.push(path);
            }
        }
        Value::Array(items) => {
            for (index, inner) in items.iter().enumerate() {
                fields(inner, &format!("{path}/{index}"), out);
            }
        }
        _ => {}
    }
}

fn rename(report: &mut Value, path: &str, to: &str) {
    let (parent, key) = path.rsplit_once('/').expect("a pointer");
    let map = report.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    let value = map.remove(key).expect("the field");
    map.insert(to.to_owned(), value);
}

#[test]
fn no_field_can_be_renamed_or_retyped_unnoticed() {
    let validator = validator(&schema());
    let report = rendered(&sample::exhaustion(), &sample::degraded_host());
    let mut paths = Vec::new();
    fields(&report, "", &mut paths);
    assert!(paths.len() > 200, "the walk found only {} fields", paths.len());
    for path in paths {
        let mut renamed = report.clone();
        rename(&mut renamed, &path, "something_else");
        assert!(!validator.is_valid(&renamed), "{path} may be missing");
        // No field of the contract may be true or false where it is not now.
        let mut retyped = report.clone();
        let value = retyped.pointer_mut(&path).expect("the field");
        *value = if value.is_boolean() { json!(0) } else { json!(true) };
        assert!(!validator.is_valid(&retyped), "{path} may be anything");
    }
}

/// Forbids what the schema does not name, everywhere.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.contains_key("properties") {
                map.insert("additionalProperties".into(), json!(false));
            }
            map.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

#[test]
fn the_schema_names_every_field_that_is_written() {
    let mut strict = schema();
    close(&mut strict);
    let validator = validator(&strict);
    for (name, snapshot, host) in sample::all() {
        let report = rendered(&snapshot, &host);
        let errors: Vec<_> =
            validator.iter_errors(&report).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}");
    }
}

#[test]
fn the_same_snapshot_gives_the_same_bytes() {
    for (name, snapshot, host) in sample::all() {
        let once = Report::new(&snapshot, &host, &sample::clock()).to_json().expect("serialises");
        let again = Report::new(&snapshot.clone(), &host, &sample::clock()).to_json().expect("serialises");
        assert_eq!(once, again, "{name}");
    }
}

#[test]
fn what_is_unknown_is_null_and_what_is_known_keeps_its_name() {
    let lossy = rendered(&sample::lossy(), &HostFacts::default());
    for path in [
        "/host/hostname",
        "/host/tier",
        "/destinations/0/ports/capacity",
        "/destinations/0/ports/range",
        "/destinations/0/sustainable_per_second",
        "/destinations/0/seconds_to_exhaustion",
        "/destinations/0/netns_name",
        "/attributions/2/lifetime_ms/p50",
        "/listeners/0/pid",
    ] {
        assert_eq!(lossy.pointer(path), Some(&Value::Null), "{path}");
    }
    let nasty = rendered(&sample::nasty(), &sample::host());
    assert_eq!(nasty.pointer("/workloads/0/pids/2/pid"), Some(&Value::Null));
    assert_eq!(nasty.pointer("/workloads/0/netns/0"), Some(&Value::Null));

    let report = rendered(&sample::exhaustion(), &sample::host());
    assert_eq!(report["schema"], "portchurn.report/1");
    assert_eq!(report["window"]["start"], "2026-03-14T03:11:07.000000000Z");
    assert_eq!(report["window"]["seconds"], 30.0);
    assert_eq!(report["destinations"][0]["first_failure"], "2026-03-14T03:11:19.204000000Z");
    assert_eq!(report["destinations"][0]["failed"], json!({ "EADDRNOTAVAIL": 1204, "TUPLE_TAKEN": 3, "ETIMEDOUT": 1 }));
    assert_eq!(report["destinations"][0]["ports"]["by_state"], json!({ "ESTABLISHED": 42, "TIME_WAIT": 982 }));
    assert_eq!(report["findings"][0]["since"], "2026-03-14T03:11:19.204000000Z");
    assert_eq!(report["findings"][1]["since"], Value::Null);
}
