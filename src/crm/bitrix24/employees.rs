//! Everybody who works with a portal: users, departments, absences, the working-day clock.
//!
//! Users come from `user.get` and must be there; all else is optional, see [`Part`]. No event tells of
//! any of it, so it is read anew each time.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Zoned;
use serde_json::{Value, json};

use super::super::CrmError;
use super::super::budget::Lane;
use super::super::optional::{Part, Weight};
use super::availability::{self, Accessibility};
use super::client::{Client, Reply, shape};
use super::wire;
use crate::record::{Absence, CrmName, Department, Employee, EmployeeId, Staff, Workday};

const USERS: &str = "user.get";
const DEPARTMENTS: &str = "department.get";
/// The most users that are read; a portal that tells of more repeats itself.
const USERS_LIMIT: usize = 100_000;
/// The same for departments.
const DEPARTMENTS_LIMIT: usize = 20_000;
/// How long an optional part may keep the employees waiting, repeats and rests included.
const PART_PATIENCE: Duration = Duration::from_mins(1);

/// What is to be read besides users and departments.
#[derive(Debug, Clone)]
pub(super) struct Wishes {
    /// Absences from the calendars: `None` takes them where the right to read calendars is there.
    pub(super) absences: Option<bool>,
    /// What in a calendar means that somebody is away.
    pub(super) absent_when: Vec<Accessibility>,
    /// The working-day clock.
    pub(super) workday: bool,
}

/// Reads the people of one portal.
#[derive(Debug)]
pub(super) struct People {
    pub(super) wishes: Wishes,
    departments: Part<Vec<Department>>,
    absences: Part<HashMap<EmployeeId, Vec<Absence>>>,
    workdays: Part<()>,
}

impl People {
    /// Nothing is read yet.
    pub(super) fn new(wishes: Wishes) -> Self {
        let weight = match wishes.absences {
            Some(_) => Weight::Wanted,
            None => Weight::Welcome,
        };
        Self {
            wishes,
            departments: Part::new("departments and their heads", Weight::Wanted),
            absences: Part::new("absences", weight),
            workdays: Part::new("working days", Weight::Wanted),
        }
    }

    /// Reads them all.
    pub(super) async fn read(&self, client: &Client, crm: &CrmName) -> Result<Staff, CrmError> {
        let (mut employees, now) = users(client).await?;
        let departments = in_time(DEPARTMENTS, departments(client)).await;
        let departments = self.departments.settle(crm, departments)?;
        if self.wishes.absences != Some(false) {
            let asked: Vec<&EmployeeId> = active(&employees).map(|one| &one.id).collect();
            let found = match &now {
                Some(now) => {
                    let absences =
                        availability::absences(client, &asked, now, &self.wishes.absent_when);
                    in_time(availability::CALENDAR, absences).await
                }
                None => Err(shape(USERS, "the portal does not tell its time")),
            };
            let mut absences = self.absences.settle(crm, found)?;
            for employee in &mut employees {
                employee.absences = absences.remove(&employee.id).unwrap_or_default();
            }
        }
        if self.wishes.workday {
            let workdays = self.read_workdays(client, crm, &employees).await;
            for employee in &mut employees {
                employee.workday = workdays.get(&employee.id).copied();
            }
        }
        Ok(Staff {
            employees,
            departments,
        })
    }

    /// The clock tells of this moment: what it said earlier never stands in for what it cannot say.
    async fn read_workdays(
        &self,
        client: &Client,
        crm: &CrmName,
        employees: &[Employee],
    ) -> HashMap<EmployeeId, Workday> {
        let has_extension = |one: &&Employee| one.extension.is_some();
        let asked: Vec<&EmployeeId> = active(employees)
            .filter(has_extension)
            .map(|one| &one.id)
            .collect();
        let mut workdays = HashMap::new();
        for some in asked.chunks(availability::WORKDAYS_AT_ONCE) {
            let read = availability::workdays(client, some);
            match in_time(availability::CLOCK, read).await {
                Ok(read) => workdays.extend(read),
                Err(error) => {
                    self.workdays.tell(crm, &error);
                    return workdays;
                }
            }
        }
        self.workdays.went_well();
        workdays
    }
}

fn active(employees: &[Employee]) -> impl Iterator<Item = &Employee> {
    employees.iter().filter(|one| one.active)
}

/// What an optional part answers within its time.
async fn in_time<T>(
    method: &str,
    read: impl Future<Output = Result<T, CrmError>>,
) -> Result<T, CrmError> {
    let late = |_| CrmError::Unreachable {
        method: method.to_owned(),
        cause: format!("it took longer than {} s", PART_PATIENCE.as_secs()).into(),
    };
    let read = tokio::time::timeout(PART_PATIENCE, read).await;
    read.map_err(late)?
}

/// All users, and the portal's own clock with its offset.
async fn users(client: &Client) -> Result<(Vec<Employee>, Option<Zoned>), CrmError> {
    let body = json!({
        "sort": "ID",
        "order": "ASC",
        "select": ["ID", "NAME", "LAST_NAME", "ACTIVE", "UF_PHONE_INNER", "EMAIL",
                   "PERSONAL_MOBILE", "WORK_PHONE", "UF_DEPARTMENT"],
    });
    let mut now = None;
    let employees = pages(client, USERS, body, USERS_LIMIT, |reply, row| {
        now = now.take().or_else(|| wire::local_time(&reply.time));
        wire::employee(row)
    })
    .await?;
    if employees.is_empty() {
        return Err(shape(
            USERS,
            "nobody at all; has the webhook or application lost its rights?",
        ));
    }
    Ok((employees, now))
}

async fn departments(client: &Client) -> Result<Vec<Department>, CrmError> {
    let body = json!({"sort": "ID", "order": "ASC"});
    pages(client, DEPARTMENTS, body, DEPARTMENTS_LIMIT, |_, row| {
        wire::department(row)
    })
    .await
}

/// All rows of a counted list.
async fn pages<T>(
    client: &Client,
    method: &'static str,
    mut body: Value,
    limit: usize,
    mut take: impl FnMut(&Reply, &Value) -> Result<T, String>,
) -> Result<Vec<T>, CrmError> {
    let mut taken = Vec::new();
    let mut start = 0;
    loop {
        if let Some(parameters) = body.as_object_mut() {
            parameters.insert("start".to_owned(), json!(start));
        }
        let reply = client
            .patiently(|| client.call(Lane::Change, method, &body))
            .await?;
        let rows = wire::items(&reply.result).ok_or_else(|| shape(method, "no list"))?;
        for row in rows {
            taken.push(take(&reply, row).map_err(|fault| shape(method, fault))?);
        }
        match reply.next {
            Some(next) if next <= start || taken.len() > limit => {
                return Err(shape(method, "its pages do not end"));
            }
            Some(next) => start = next,
            None => return Ok(taken),
        }
    }
}
