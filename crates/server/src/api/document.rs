//! The description of the API itself.

use axum::http::header;
use axum::response::IntoResponse;
use std::sync::LazyLock;

/// This description, in OpenAPI 3.1.
#[utoipa::path(get, path = "/openapi.json", operation_id = "get_openapi", tag = "service", responses((status = 200, body = serde_json::Value, content_type = "application/json")))]
pub(super) async fn document() -> impl IntoResponse {
    static TEXT: LazyLock<String> = LazyLock::new(crate::openapi::text);
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())
}
