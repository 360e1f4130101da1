//! A request's query, as PHP reads it.

use http::{Method, Uri};

use super::answers::{Invalid, invalid};
use super::{DEFAULT_PAGE, LARGEST_PAGE};

/// A decoded query.
pub(super) struct Query(pub(super) Vec<(String, String)>);

impl Query {
    pub(super) fn read(raw: Option<&str>) -> Self {
        Self(serde_urlencoded::from_str(raw.unwrap_or_default()).unwrap_or_default())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn number<T: std::str::FromStr>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, Invalid> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| invalid(name, "This value should be of type int."))
    }

    pub(super) fn page_and_limit(&self) -> Result<(usize, usize), Invalid> {
        self.page_and_limit_up_to(LARGEST_PAGE, "This value should be 250 or less.")
    }

    pub(super) fn page_and_limit_up_to(
        &self,
        largest: usize,
        detail: &'static str,
    ) -> Result<(usize, usize), Invalid> {
        let page = self.number("page")?.unwrap_or(1);
        let limit = self.number("limit")?.unwrap_or(DEFAULT_PAGE);
        if page < 1 {
            return Err(invalid("page", "This value should be 1 or more."));
        }
        if !(1..=largest).contains(&limit) {
            return Err(invalid("limit", detail));
        }
        Ok((page, limit))
    }

    pub(super) fn asks_with(&self, what: &str) -> bool {
        self.get("with")
            .is_some_and(|all| all.split(',').any(|one| one == what))
    }

    /// A comma list or an array: `name=a,b`, `name[]=a&name[]=b` or `name[0]=a`.
    pub(super) fn all(&self, name: &str) -> Option<Vec<&str>> {
        let is_one = |key: &str| {
            let rest = key.strip_prefix(name);
            rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with('[') && is_index(rest)))
        };
        let found = self.0.iter().filter(|(key, _)| is_one(key));
        let all: Vec<&str> = found.flat_map(|(_, value)| value.split(',')).collect();
        (!all.is_empty()).then_some(all)
    }

    /// `filter[id][]=1`, `filter[id][0]=1` or `filter[id]=1`.
    pub(super) fn ids(&self) -> Option<Vec<u64>> {
        let ids: Vec<u64> = self
            .0
            .iter()
            .filter(|(key, _)| key.starts_with("filter[id]"))
            .filter_map(|(_, value)| value.parse().ok())
            .collect();
        (!ids.is_empty()).then_some(ids)
    }
}

pub(super) fn line_of(method: &Method, uri: &Uri) -> String {
    let query = Query::read(uri.query()).0;
    let pairs: Vec<String> = query
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!("{method} {}?{}", uri.path(), pairs.join("&"))
}

/// `[]` or `[17]`.
fn is_index(rest: &str) -> bool {
    let inside = rest
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inside.is_some_and(|inside| inside.bytes().all(|byte| byte.is_ascii_digit()))
}
