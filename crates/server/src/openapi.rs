//! The description of the API in OpenAPI 3.1, made from the handlers and the shapes.
//!
//! A handler says what it takes and what it answers when all goes well, and which conflicts there are. What every request may be refused
//! for, by its method and its path, is added here, so that no handler forgets it.

mod tidy;

use crate::api;
use crate::problem::Problem;
use crate::wire;
use serde_json::json;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, Paths};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Response, ResponseBuilder, Responses,
};
use utoipa::{PartialSchema, ToSchema};

/// The media type of refusals.
const PROBLEM: &str = "application/problem+json";
/// The name of the way to say who one is.
const TOKEN: &str = "token";

/// As JSON, as it is served and kept in `docs/openapi.json`; ends with a line feed.
///
/// # Panics
/// Never: all parts are JSON.
pub fn text() -> String {
    let mut document = serde_json::to_value(document()).expect("the description has nothing that is no JSON");
    tidy::tidy(&mut document);
    format!("{document:#}\n")
}

fn document() -> OpenApi {
    let (_, routes) = api::routes().split_for_parts();
    let mut document = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Backstop")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(include_str!("openapi/introduction.md").trim()))
                .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
                .build(),
        )
        .tags(Some([
            TagBuilder::new().name("dags").description(Some("What can be run")).build(),
            TagBuilder::new().name("runs").description(Some("What runs and ran, and steering it")).build(),
            TagBuilder::new().name("backfills").description(Some("Runs for a range of dates that have passed")).build(),
            TagBuilder::new().name("settings").description(Some("Variables, pools and connections")).build(),
            TagBuilder::new().name("service").description(Some("How the service is, and what happens")).build(),
        ]))
        .paths(routes.paths)
        .components(routes.components)
        .security(Some([SecurityRequirement::default(), SecurityRequirement::new::<_, [&str; 0], &str>(TOKEN, [])]))
        .build();
    add_refusals(&mut document.paths);
    add_components(&mut document);
    document
}

/// Refusals by status: name, status, description.
const REFUSALS: &[(&str, &str, &str)] = &[
    ("BadRequest", "400", "A value makes no sense, or the body is no JSON"),
    ("Unauthorized", "401", "No valid token came with the request"),
    ("WrongOrigin", "403", "A page of another site asks"),
    ("NotFound", "404", "There is no such thing"),
    ("MethodNotAllowed", "405", "This path is not asked by this method"),
    ("RequestTimeout", "408", "The body did not come within 30 seconds"),
    ("Conflict", "409", "It does not fit as things stand: the run is over, or driven by another process, ..."),
    ("TooLarge", "413", "The body is larger than 1 MiB"),
    ("NoJson", "415", "The body has no JSON content type"),
    ("WrongHost", "421", "The Host is not this service's"),
    ("Unprocessable", "422", "A field is unknown, missing, or of another type; or parameters do not fit the DAG"),
    ("Unavailable", "503", "The store does not answer, the run could not be changed, or the service is stopping"),
];

fn add_refusals(paths: &mut Paths) {
    for (path, item) in &mut paths.paths {
        let takes_path = path.contains('{');
        for (operation, changes) in [
            (&mut item.get, false),
            (&mut item.delete, true),
            (&mut item.patch, true),
            (&mut item.post, true),
            (&mut item.put, true),
        ] {
            if let Some(operation) = operation {
                add_to(operation, path, takes_path, changes);
            }
        }
    }
}

/// What a request may be refused for whatever it asks: by who asks, by its path, its query and its body.
fn add_to(operation: &mut Operation, path: &str, takes_path: bool, changes: bool) {
    let has_body = operation.request_body.is_some();
    let takes_query = operation.parameters.as_ref().is_some_and(|all| !all.is_empty());
    let mut add = |name: &str| {
        if let Some((name, status, _)) = REFUSALS.iter().find(|(known, ..)| *known == name) {
            let responses: &mut Responses = &mut operation.responses;
            responses.responses.entry((*status).to_owned()).or_insert_with(|| RefOr::Ref(Ref::from_response_name(*name)));
        }
    };
    add("WrongHost");
    add("Unavailable");
    if path != "/health" {
        add("Unauthorized");
    }
    if takes_path {
        add("NotFound");
    }
    if takes_query || changes {
        add("BadRequest");
    }
    if changes {
        add("WrongOrigin");
    }
    if has_body {
        ["RequestTimeout", "TooLarge", "NoJson", "Unprocessable"].into_iter().for_each(add);
    }
}

/// Refusals, and what only the stream tells.
fn add_components(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    for (name, _, description) in REFUSALS {
        components.responses.insert((*name).to_owned(), RefOr::T(refusal(description)));
    }
    let mut schemas = vec![(Problem::name().into_owned(), Problem::schema())];
    Problem::schemas(&mut schemas);
    for (name, schema) in wire::stream::schemas() {
        schemas.push((name, schema));
    }
    for (name, schema) in schemas {
        components.schemas.entry(name).or_insert(schema);
    }
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The token that the service was started with; one that listens on loopback may have none"))
        .build();
    components.security_schemes.insert(TOKEN.to_owned(), RefOr::T(SecurityScheme::Http(scheme)));
    if let Some(stream) = document.paths.paths.get_mut("/api/v1/stream").and_then(|item| item.get.as_mut()) {
        let events = json!({
            "run": { "$ref": "#/components/schemas/StreamRun" },
            "dags": { "$ref": "#/components/schemas/StreamDags" },
            "gap": { "$ref": "#/components/schemas/StreamGap" },
        });
        stream.extensions = Some(ExtensionsBuilder::new().add("x-sse-events", events).build());
    }
}

fn refusal(description: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(RefOr::Ref(Ref::from_schema_name(Problem::name())))).build();
    ResponseBuilder::new().description(description).content(PROBLEM, content).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_name_of_its_own_and_every_schema_a_use() {
        let text = text();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut names = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap();
                assert!(names.insert(name.to_owned()), "{method} {path} has the name of another operation: {name}");
                assert!(operation["summary"].is_string(), "{method} {path} does not say what it does");
            }
        }
        for name in document["components"]["schemas"].as_object().unwrap().keys() {
            let is_used = text.contains(&format!("\"#/components/schemas/{name}\""));
            assert!(is_used, "nothing refers to the schema {name}");
        }
    }

    #[test]
    fn every_list_has_a_limit_and_a_cursor() {
        let document: serde_json::Value = serde_json::from_str(&text()).unwrap();
        let mut lists = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            let answer = &item["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
            let Some(schema) = answer.as_str().and_then(|name| document.pointer(name.trim_start_matches('#'))) else { continue };
            if schema["properties"]["items"].is_null() {
                continue;
            }
            lists += 1;
            let parameters = item["get"]["parameters"].as_array().unwrap();
            let takes = |name: &str| parameters.iter().any(|parameter| parameter["name"] == name && parameter["in"] == "query");
            assert!(takes("limit") && (takes("after") || takes("before")), "{path} comes whole");
        }
        assert!(lists > 10, "{lists}");
    }

    /// The description is a file, so that programs are made from it and changes are seen. `make openapi` writes it.
    #[test]
    fn the_openapi_file_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        if std::env::var_os("BACKSTOP_UPDATE_OPENAPI").is_some() {
            std::fs::write(path, text()).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == text(), "docs/openapi.json is not current: `make openapi` writes it");
    }
}
