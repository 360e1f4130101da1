//! How PHP reads a query and writes JSON: `a[b][]=c` becomes nested maps, lists are maps with
//! numbers as keys, an empty map is written `[]`.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

/// A batch's commands in the order in which they were sent.
#[derive(Debug, Default)]
pub struct Commands(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for Commands {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Commands;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a map or list of commands")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Commands, A::Error> {
                let mut commands = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    commands.push(entry);
                }
                Ok(Commands(commands))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Commands, A::Error> {
                let mut commands = Vec::new();
                while let Some(command) = list.next_element()? {
                    commands.push((commands.len().to_string(), command));
                }
                Ok(Commands(commands))
            }
        }
        deserializer.deserialize_any(InOrder)
    }
}

/// Reads a query as `parse_str` does; the pairs come in their order.
pub fn pairs(query: &str) -> Vec<(String, String)> {
    serde_urlencoded::from_str(query).unwrap_or_default()
}

/// Puts `a[b][]` = value into nested maps.
pub fn insert(root: &mut Value, key: &str, value: Value) {
    let (first, rest) = key.split_once('[').unwrap_or((key, ""));
    let mut path = vec![first];
    path.extend(
        rest.split('[')
            .filter(|_| !rest.is_empty())
            .map(|part| part.trim_end_matches(']')),
    );
    let mut place = root;
    for part in path {
        if !place.is_object() {
            *place = json!({});
        }
        let map = place.as_object_mut().unwrap();
        let part = match part {
            "" => map.len().to_string(),
            part => part.to_owned(),
        };
        place = map.entry(part).or_insert(Value::Null);
    }
    *place = value;
}

/// Reads a query into nested maps.
pub fn parse(query: &str) -> Value {
    let mut root = json!({});
    for (key, value) in pairs(query) {
        insert(&mut root, &key, Value::String(value));
    }
    root
}

/// Reads a command's query; `$result[name][path]` is looked up, a missing value becomes empty.
pub fn parse_with_results(query: &str, results: &Map<String, Value>) -> Value {
    let mut root = json!({});
    for (key, value) in pairs(query) {
        let value = match value.strip_prefix("$result[") {
            Some(path) => look_up(path, results).unwrap_or_else(|| json!("")),
            None => Value::String(value),
        };
        insert(&mut root, &key, value);
    }
    root
}

fn look_up(path: &str, results: &Map<String, Value>) -> Option<Value> {
    let mut parts = path.split('[').map(|part| part.trim_end_matches(']'));
    let mut value = results.get(parts.next()?)?;
    for part in parts {
        value = match value {
            Value::Array(list) => list.get(part.parse::<usize>().ok()?)?,
            Value::Object(map) => map.get(part)?,
            _ => return None,
        };
    }
    Some(value.clone())
}

/// A map as PHP writes it: `[]` when empty, a list when the keys are 0, 1, 2 in order.
pub fn map(entries: Vec<(String, Value)>) -> Value {
    let numbered = entries
        .iter()
        .enumerate()
        .all(|(place, (key, _))| *key == place.to_string());
    if numbered {
        return entries.into_iter().map(|(_, value)| value).collect();
    }
    Value::Object(entries.into_iter().collect())
}

/// The scalar values of a list, which a query makes a map with numbers as keys.
pub fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().map(text).collect(),
        Value::Object(map) => map.values().map(text).collect(),
        other => vec![text(other)],
    }
}

/// A scalar as text.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(truth) => if *truth { "1" } else { "" }.to_owned(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// The value under this key, whatever the case of its letters.
pub fn get<'a>(params: &'a Value, key: &str) -> Option<&'a Value> {
    params
        .as_object()?
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(key))
        .map(|(_, value)| value)
}
