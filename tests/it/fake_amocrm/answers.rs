//! The forms of the account's answers.

use axum::body::Body;
use axum::response::Response;
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::Mood;

const HAL: &str = "application/hal+json";

pub(super) fn typed(status: StatusCode, kind: &str, body: impl Into<Body>) -> Response {
    let response = Response::builder().status(status);
    response
        .header(header::CONTENT_TYPE, kind)
        .body(body.into())
        .unwrap()
}

pub(super) fn json_answer(status: StatusCode, body: &Value) -> Response {
    let kind = if status.is_success() {
        HAL
    } else {
        "application/problem+json"
    };
    typed(status, kind, body.to_string())
}

pub(super) fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({"title": status.canonical_reason(), "type": format!("https://httpstatus.es/{}", status.as_u16()),
        "status": status.as_u16(), "detail": detail});
    json_answer(status, &body)
}

/// A parameter that the account does not take.
pub(super) struct Invalid {
    name: &'static str,
    detail: &'static str,
}

impl Invalid {
    pub(super) fn answer(&self) -> Response {
        let path = self
            .name
            .replace("][", ".")
            .replace('[', ".")
            .replace(']', "");
        let body = json!({"title": "Bad Request", "type": "https://httpstatus.es/400", "status": 400,
            "detail": "Request validation failed", "validation-errors": [{"request_id": "0",
            "errors": [{"code": "InvalidType", "path": path, "detail": self.detail}]}]});
        json_answer(StatusCode::BAD_REQUEST, &body)
    }
}

pub(super) fn invalid(name: &'static str, detail: &'static str) -> Invalid {
    Invalid { name, detail }
}

pub(super) fn unauthorised() -> Response {
    problem(StatusCode::UNAUTHORIZED, "Authorization failed")
}

pub(super) fn no_content() -> Response {
    let response = Response::builder().status(StatusCode::NO_CONTENT);
    response.body(Body::empty()).unwrap()
}

pub(super) fn html(status: StatusCode) -> Response {
    let text = format!(
        "<html><head><title>{status}</title></head><body><center>nginx</center></body></html>"
    );
    typed(status, "text/html", text)
}

/// A page of a list, damaged if the account is in such a mood.
pub(super) fn damaged(mood: Mood, list: &str, mut body: Value) -> Response {
    damage(mood, &mut body["_embedded"][list][0]);
    whole_or_torn(mood, &body)
}

/// A single card, damaged likewise.
pub(super) fn damaged_card(mood: Mood, mut card: Value) -> Response {
    damage(mood, &mut card);
    whole_or_torn(mood, &card)
}

fn damage(mood: Mood, row: &mut Value) {
    match mood {
        Mood::MissingField => drop(row.as_object_mut().unwrap().remove("id")),
        Mood::WrongType => {
            row["custom_fields_values"] = json!("none");
            row["created_at"] = json!("none");
        }
        _ => {}
    }
}

fn whole_or_torn(mood: Mood, body: &Value) -> Response {
    let text = body.to_string();
    match mood {
        Mood::HtmlPage => html(StatusCode::OK),
        Mood::CutPage => {
            let half = text.char_indices().nth(text.chars().count() / 2).unwrap().0;
            typed(StatusCode::OK, HAL, text[..half].to_owned())
        }
        _ => typed(StatusCode::OK, HAL, text),
    }
}
