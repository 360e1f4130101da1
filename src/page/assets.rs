//! Style, script and icon, from the binary. `vendor` holds htmx as its authors publish it.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

/// A file that a browser may load.
struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static str,
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

const ALL: [Asset; 4] = [
    Asset {
        name: "style.css",
        kind: "text/css; charset=utf-8",
        content: include_str!("assets/style.css"),
    },
    Asset {
        name: "htmx.js",
        kind: JAVASCRIPT,
        content: include_str!("vendor/htmx.min.js"),
    },
    Asset {
        name: "htmx-sse.js",
        kind: JAVASCRIPT,
        content: include_str!("vendor/sse.min.js"),
    },
    Asset {
        name: "icon.svg",
        kind: "image/svg+xml",
        content: include_str!("assets/icon.svg"),
    },
];

/// The path of an asset. A new version has a new one, so that no browser shows an old style.
pub(super) fn address(file: &str) -> String {
    format!("/assets/{file}?{}", env!("CARGO_PKG_VERSION"))
}

pub(super) async fn serve(Path(file): Path<String>) -> Response {
    let Some(asset) = ALL.iter().find(|asset| asset.name == file) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (CONTENT_TYPE, asset.kind),
        (CACHE_CONTROL, "public, max-age=3600"),
    ];
    (headers, asset.content).into_response()
}
