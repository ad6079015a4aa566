//! The table of routes. A handler's annotation has its path and method; the router and `GET /openapi.json` are both made
//! from it. Pages for browsers are not in that document, so their paths are here.
//!
//! axum runs a GET handler for HEAD as well. Where GET changes something, HEAD is refused: a link
//! checker must not sign in or scale.

mod account;
mod admin;
mod assets;
mod fleet;
mod list;

use axum::middleware::from_fn;
use axum::routing::{MethodRouter, get, post};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::{ApiError, Worker, guard};

pub fn router() -> OpenApiRouter<Worker> {
    reading().merge(changing())
}

fn reading() -> OpenApiRouter<Worker> {
    OpenApiRouter::new()
        // For any client.
        .route("/", get(account::home))
        .route("/assets/{name}", get(assets::asset))
        .routes(routes!(fleet::health_check))
        .routes(routes!(fleet::check_amount))
        // For the session's owner.
        .routes(routes!(account::protected))
        // For the operator.
        .routes(routes!(list::list))
        .route("/admin", get(admin::page))
        .route("/admin/fleet", get(admin::fleet))
}

fn changing() -> OpenApiRouter<Worker> {
    OpenApiRouter::new()
        // For any client.
        .routes(routes!(account::sign_up_by_path))
        .routes(routes!(account::sign_up))
        .routes(routes!(account::sign_in_by_path).map(get_only))
        .routes(routes!(account::sign_in))
        .route("/admin/signin", post(admin::sign_in))
        .route("/admin/signout", post(admin::sign_out))
        // For the session's owner.
        .routes(routes!(account::sign_out))
        .routes(routes!(account::sign_out_everywhere))
        .routes(routes!(account::change_password))
        .routes(routes!(account::delete_account))
        .route("/account/delete", post(account::delete_account))
        // For the operator.
        .routes(routes!(fleet::set_amount_by_query).map(get_only))
        .routes(routes!(fleet::set_amount_by_path).map(get_only))
        .route("/admin/amount", post(admin::set_amount))
        .route_layer(from_fn(guard::own_site_only))
}

fn get_only(route: MethodRouter<Worker>) -> MethodRouter<Worker> {
    let refuse = async || ApiError::MethodNotAllowed { allow: Some("GET") };
    route.head(refuse).fallback(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the documented paths that have a GET.
    fn gets(router: &OpenApiRouter<Worker>) -> Vec<&str> {
        let paths = router.get_openapi().paths.paths.iter();
        paths.filter(|(_, item)| item.get.is_some()).map(|(path, _)| path.as_str()).collect()
    }

    /// The load balancer does not repeat them after silence.
    #[test]
    fn the_load_balancer_knows_each_get_that_changes_something() {
        let changing = changing();
        let changing = gets(&changing);
        assert_eq!(changing, ["/setamount", "/setamount/{amount}", "/signin/{login}/{password}"]);
        for path in changing {
            assert!(::fleet::layers::get_changes_something(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn the_load_balancer_repeats_a_get_that_only_reads() {
        let reading = reading();
        let pages = ["/", "/assets/{name}", "/admin", "/admin/fleet", "/openapi.json"];
        for path in gets(&reading).into_iter().chain(pages) {
            assert!(!::fleet::layers::get_changes_something(path.as_bytes()), "{path}");
        }
    }
}
