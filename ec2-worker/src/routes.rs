//! The table of routes.
//!
//! | route | who | changes something |
//! |---|---|---|
//! | `GET /`, `GET /openapi.json` | any client | |
//! | `GET /healthcheck`, `GET /checkamount` | any client | |
//! | `GET /setamount/<n>`, `GET /setamount?amount=<n>` | admin | yes |
//! | `GET /list` | admin | |
//! | `POST /signup/<login>/<password>`, `POST /signup` | any client | yes |
//! | `GET /signin/<login>/<password>`, `POST /signin` | any client | yes |
//! | `GET /protected` | the session's owner | |
//! | `POST /signout`, `POST /signout/everywhere` | the session's owner | yes |
//! | `POST /password`, `DELETE /account`, `POST /account/delete` | the session's owner | yes |
//! | `GET /admin`, `GET /admin/fleet` | admin | |
//! | `POST /admin/signin`, `POST /admin/signout` | any client | yes |
//! | `POST /admin/amount` | admin | yes |
//! | `GET /assets/<name>` | any client | |
//!
//! axum runs a GET handler for HEAD as well. Where GET changes something, HEAD is refused: a link
//! checker must not sign in or scale.

pub(crate) mod account;
mod admin;
mod assets;
pub(crate) mod fleet;
pub(crate) mod list;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn;
use axum::routing::{MethodRouter, delete, get, post};

use crate::{ApiError, Worker, guard};

pub fn router() -> Router<Worker> {
    let changing = Router::new()
        .route("/signup/{login}/{password}", post(account::sign_up_by_path))
        .route("/signup", post(account::sign_up))
        .route("/signin/{login}/{password}", get_only(account::sign_in_by_path))
        .route("/signin", post(account::sign_in))
        .route("/signout", post(account::sign_out))
        .route("/signout/everywhere", post(account::sign_out_everywhere))
        .route("/password", post(account::change_password))
        .route("/account", delete(account::delete_account))
        .route("/account/delete", post(account::delete_account))
        .route("/setamount", get_only(fleet::set_amount_by_query))
        .route("/setamount/{amount}", get_only(fleet::set_amount_by_path))
        .route("/admin/signin", post(admin::sign_in))
        .route("/admin/signout", post(admin::sign_out))
        .route("/admin/amount", post(admin::set_amount))
        .route_layer(from_fn(guard::own_site_only));
    Router::new()
        .route("/", get(account::home))
        .route("/protected", get(account::protected))
        .route("/healthcheck", get(fleet::health_check))
        .route("/checkamount", get(fleet::check_amount))
        .route("/list", get(list::list))
        .route("/admin", get(admin::page))
        .route("/admin/fleet", get(admin::fleet))
        .route("/assets/{name}", get(assets::asset))
        .merge(changing)
}

fn get_only<H, T>(handler: H) -> MethodRouter<Worker>
where
    H: Handler<T, Worker>,
    T: 'static,
{
    let refuse = async || ApiError::MethodNotAllowed { allow: Some("GET") };
    get(handler).head(refuse).fallback(refuse)
}

#[cfg(test)]
mod tests {
    /// The load balancer does not repeat them after silence.
    #[test]
    fn the_load_balancer_knows_each_get_that_changes_something() {
        let routes = include_str!("routes.rs").lines().filter(|line| line.trim().starts_with(".route("));
        let paths = routes.filter_map(|line| Some((line.split('"').nth(1)?, line.contains("get_only("))));
        let mut changing = 0;
        for (path, is_changing) in paths.filter(|(path, _)| *path != "/signin") {
            changing += usize::from(is_changing);
            let is_known = fleet::layers::get_changes_something(path.as_bytes());
            assert_eq!(is_known, is_changing, "{path}");
        }
        assert_eq!(changing, 3);
    }
}
