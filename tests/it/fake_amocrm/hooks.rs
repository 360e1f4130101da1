//! What the account's webhooks send: forms in PHP's brackets.

use super::rows::{full_name, status_of};
use super::{ACCOUNT_ID, FakeAmocrm, list_of};
use crate::world::{Entry, Happened, List, What};

const FORM: &str = "application/x-www-form-urlencoded";

/// Names and values of a form, not yet encoded.
type Pairs = Vec<(String, String)>;

impl FakeAmocrm {
    /// The requests that amoCRM would send: content type and body of each.
    ///
    /// A change of the responsible is told twice, a merge as a deletion and a change.
    pub(crate) fn hook_bodies(&self, happened: &Happened) -> Vec<(String, String)> {
        let Happened { list, id, what } = *happened;
        if list_of(list).is_none() {
            return Vec::new();
        }
        let bodies = match what {
            What::Added => vec![self.full("add", list, id, None)],
            What::Changed => vec![self.full("update", list, id, None)],
            What::Reassigned(former) => vec![
                self.full("responsible", list, id, Some(former)),
                self.full("update", list, id, None),
            ],
            What::Deleted => vec![Some(deletion(list, id))],
            What::MergedInto(survivor) => vec![
                Some(deletion(list, id)),
                self.full("update", list, survivor, None),
            ],
        };
        let told = bodies.into_iter().flatten();
        told.map(|pairs| (FORM.to_owned(), self.signed(pairs)))
            .collect()
    }

    /// All fields of a card; `None` if it has gone meanwhile.
    fn full(&self, action: &str, list: List, id: u64, former: Option<u64>) -> Option<Pairs> {
        let world = self.shared.world.read().unwrap();
        let entry = world.list(list).iter().find(|entry| entry.id == id)?;
        let company = entry.company.and_then(|id| {
            let company = world.companies.iter().find(|company| company.id == id);
            company.map(full_name)
        });
        let start = format!("{}[{action}][0]", first_key(list));
        Some(fields(&start, list, entry, company, former))
    }

    /// What stands at the end of each body. Nothing else says whose it is.
    fn signed(&self, mut pairs: Pairs) -> String {
        pairs.push(("account[subdomain]".to_owned(), "demo".to_owned()));
        pairs.push(("account[id]".to_owned(), ACCOUNT_ID.to_string()));
        pairs.push(("account[_links][self]".to_owned(), self.url()));
        serde_urlencoded::to_string(pairs).unwrap()
    }
}

/// Companies come among the contacts, told apart by their type.
fn first_key(list: List) -> &'static str {
    match list {
        List::Contacts | List::Companies => "contacts",
        List::Leads | List::Deals => "leads",
    }
}

fn kind_of(list: List) -> Option<&'static str> {
    match list {
        List::Contacts => Some("contact"),
        List::Companies => Some("company"),
        List::Leads | List::Deals => None,
    }
}

fn deletion(list: List, id: u64) -> Pairs {
    let start = format!("{}[delete][0]", first_key(list));
    let mut pairs = vec![(format!("{start}[id]"), id.to_string())];
    if let Some(kind) = kind_of(list) {
        pairs.push((format!("{start}[type]"), kind.to_owned()));
    } else {
        pairs.push((format!("{start}[status_id]"), "40000001".to_owned()));
        pairs.push((format!("{start}[pipeline_id]"), "30000001".to_owned()));
    }
    pairs
}

fn fields(
    start: &str,
    list: List,
    entry: &Entry,
    company: Option<String>,
    former: Option<u64>,
) -> Pairs {
    let mut pairs = Pairs::new();
    let mut put = |key: &str, value: String| pairs.push((format!("{start}{key}"), value));
    put("[id]", entry.id.to_string());
    put("[name]", full_name(entry));
    put("[responsible_user_id]", entry.responsible.to_string());
    if let Some(former) = former {
        put("[old_responsible_user_id]", former.to_string());
    }
    if list == List::Deals {
        put("[status_id]", status_of(entry).to_string());
        put("[pipeline_id]", "30000001".to_owned());
        put("[price]", "0".to_owned());
    }
    for key in ["[date_create]", "[created_at]"] {
        put(key, (entry.modified - 1000).to_string());
    }
    for key in ["[last_modified]", "[updated_at]"] {
        put(key, entry.modified.to_string());
    }
    put("[created_user_id]", "501".to_owned());
    put("[modified_user_id]", "501".to_owned());
    put("[account_id]", ACCOUNT_ID.to_string());
    if let Some((company, name)) = entry.company.zip(company) {
        put("[company_name]", name);
        put("[linked_company_id]", company.to_string());
    }
    if !entry.phones.is_empty() {
        put("[custom_fields][0][id]", "9001".to_owned());
        put("[custom_fields][0][name]", "Телефон".to_owned());
        put("[custom_fields][0][code]", "PHONE".to_owned());
        for (index, phone) in entry.phones.iter().enumerate() {
            let value = format!("[custom_fields][0][values][{index}]");
            // Now and then a value is no list.
            if entry.id.is_multiple_of(3) {
                put(&value, phone.clone());
            } else {
                put(&format!("{value}[value]"), phone.clone());
                put(&format!("{value}[enum]"), "7001".to_owned());
            }
        }
    }
    if let Some(kind) = kind_of(list) {
        put("[type]", kind.to_owned());
    }
    pairs
}
