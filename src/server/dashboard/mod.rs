//! The pages, embedded: plain HTML, modules and one sheet that use only the public API.
//!
//! Owns: the bytes and their types.
//! Must not know: handlers, data.
//! Invariant: a page loads nothing from another host and runs no inline script.

use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

/// An embedded file.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// Its path under `/assets/`, or the page's own path.
    pub path: &'static str,
    /// Media type.
    pub content_type: &'static str,
    /// Content.
    pub text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The landing page.
pub const HOME: Asset = Asset {
    path: "/",
    content_type: HTML,
    text: include_str!("index.html"),
};
/// The API reference.
pub const DOCS: Asset = Asset {
    path: "/docs",
    content_type: HTML,
    text: include_str!("docs.html"),
};

/// What the pages load.
pub const ASSETS: [Asset; 4] = [
    Asset {
        path: "docs.js",
        content_type: SCRIPT,
        text: include_str!("docs.js"),
    },
    Asset {
        path: "home.js",
        content_type: SCRIPT,
        text: include_str!("home.js"),
    },
    Asset {
        path: "page.js",
        content_type: SCRIPT,
        text: include_str!("page.js"),
    },
    Asset {
        path: "style.css",
        content_type: "text/css; charset=utf-8",
        text: include_str!("style.css"),
    },
];

/// What the assets are called together: it changes when one of them does.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let mut hash = Sha256::new();
        for asset in ASSETS {
            hash.update(asset.path);
            hash.update(asset.text);
        }
        let digest = hash.finalize();
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    });
    &VERSION
}

/// A page's text, which names its assets by their version.
pub fn page(page: &Asset) -> String {
    page.text
        .replace("\"assets/", &format!("\"assets/{}/", version()))
}

/// What a page may do: itself, its host, nothing else.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                          img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
