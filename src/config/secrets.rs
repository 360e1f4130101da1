//! Which files hold secrets, for those who look at their permissions.

use std::path::{Path, PathBuf};

use super::SECRETS;
use super::show::star_url;

/// The files that hold secrets: the configuration if one stands in it, and those that it names.
pub fn secret_files(path: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut files = Vec::new();
    if let Ok(table) = toml::from_str::<toml::Table>(&text)
        && look(&table, &mut files)
    {
        files.insert(0, path.to_owned());
    }
    files
}

/// Says whether a secret stands in this table, and collects the files that hold others.
fn look(table: &toml::Table, files: &mut Vec<PathBuf>) -> bool {
    let mut is_here = false;
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => is_here |= look(inner, files),
            toml::Value::Array(rows) => {
                for row in rows.iter().filter_map(toml::Value::as_table) {
                    is_here |= look(row, files);
                }
            }
            toml::Value::String(text) => {
                let named = key.strip_suffix("_file");
                if named.is_some_and(|secret| SECRETS.contains(&secret)) {
                    files.push(PathBuf::from(text));
                }
                // An address is a secret only where it carries one.
                is_here |= match key.as_str() {
                    "url" => star_url(text) != *text,
                    key => SECRETS.contains(&key),
                };
            }
            _ => {}
        }
    }
    is_here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_secrets_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pryamo.toml");
        for (text, expected) in [
            ("[[crm]]\nurl = \"https://demo.amocrm.ru\"\n", vec![]),
            (
                "[[crm]]\nurl = \"https://x.bitrix24.ru/rest/1/k0d3/\"\n",
                vec![path.as_path()],
            ),
            ("[ami]\nsecret = \"s\"\n", vec![path.as_path()]),
            ("[[crm]]\ntoken_file = \"/t\"\n", vec![Path::new("/t")]),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(secret_files(&path), expected, "{text}");
        }
    }
}
