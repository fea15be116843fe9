//! The pages, embedded: plain HTML, modules and sheets that use only the public API.
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
const STYLE: &str = "text/css; charset=utf-8";

/// The dashboard.
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
pub const ASSETS: [Asset; 34] = [
    Asset {
        path: "allocation.js",
        content_type: SCRIPT,
        text: include_str!("allocation.js"),
    },
    Asset {
        path: "analysis.js",
        content_type: SCRIPT,
        text: include_str!("analysis.js"),
    },
    Asset {
        path: "app.css",
        content_type: STYLE,
        text: include_str!("app.css"),
    },
    Asset {
        path: "app.js",
        content_type: SCRIPT,
        text: include_str!("app.js"),
    },
    Asset {
        path: "artifact.js",
        content_type: SCRIPT,
        text: include_str!("artifact.js"),
    },
    Asset {
        path: "artifacts.js",
        content_type: SCRIPT,
        text: include_str!("artifacts.js"),
    },
    Asset {
        path: "charts.js",
        content_type: SCRIPT,
        text: include_str!("charts.js"),
    },
    Asset {
        path: "client.js",
        content_type: SCRIPT,
        text: include_str!("client.js"),
    },
    Asset {
        path: "compare.js",
        content_type: SCRIPT,
        text: include_str!("compare.js"),
    },
    Asset {
        path: "docs.js",
        content_type: SCRIPT,
        text: include_str!("docs.js"),
    },
    Asset {
        path: "form.js",
        content_type: SCRIPT,
        text: include_str!("form.js"),
    },
    Asset {
        path: "home.js",
        content_type: SCRIPT,
        text: include_str!("home.js"),
    },
    Asset {
        path: "job.js",
        content_type: SCRIPT,
        text: include_str!("job.js"),
    },
    Asset {
        path: "jobs.js",
        content_type: SCRIPT,
        text: include_str!("jobs.js"),
    },
    Asset {
        path: "keys.js",
        content_type: SCRIPT,
        text: include_str!("keys.js"),
    },
    Asset {
        path: "lineage.js",
        content_type: SCRIPT,
        text: include_str!("lineage.js"),
    },
    Asset {
        path: "model.js",
        content_type: SCRIPT,
        text: include_str!("model.js"),
    },
    Asset {
        path: "models.js",
        content_type: SCRIPT,
        text: include_str!("models.js"),
    },
    Asset {
        path: "page.js",
        content_type: SCRIPT,
        text: include_str!("page.js"),
    },
    Asset {
        path: "preview.js",
        content_type: SCRIPT,
        text: include_str!("preview.js"),
    },
    Asset {
        path: "quality.js",
        content_type: SCRIPT,
        text: include_str!("quality.js"),
    },
    Asset {
        path: "recipe.js",
        content_type: SCRIPT,
        text: include_str!("recipe.js"),
    },
    Asset {
        path: "report.js",
        content_type: SCRIPT,
        text: include_str!("report.js"),
    },
    Asset {
        path: "retention.js",
        content_type: SCRIPT,
        text: include_str!("retention.js"),
    },
    Asset {
        path: "search.js",
        content_type: SCRIPT,
        text: include_str!("search.js"),
    },
    Asset {
        path: "searches.js",
        content_type: SCRIPT,
        text: include_str!("searches.js"),
    },
    Asset {
        path: "show.js",
        content_type: SCRIPT,
        text: include_str!("show.js"),
    },
    Asset {
        path: "style.css",
        content_type: STYLE,
        text: include_str!("style.css"),
    },
    Asset {
        path: "system.js",
        content_type: SCRIPT,
        text: include_str!("system.js"),
    },
    Asset {
        path: "upload.js",
        content_type: SCRIPT,
        text: include_str!("upload.js"),
    },
    Asset {
        path: "upload_box.js",
        content_type: SCRIPT,
        text: include_str!("upload_box.js"),
    },
    Asset {
        path: "webhook.js",
        content_type: SCRIPT,
        text: include_str!("webhook.js"),
    },
    Asset {
        path: "webhooks.js",
        content_type: SCRIPT,
        text: include_str!("webhooks.js"),
    },
    Asset {
        path: "wizard.js",
        content_type: SCRIPT,
        text: include_str!("wizard.js"),
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
        let first = digest.first_chunk().copied().unwrap_or_default();
        format!("{:016x}", u64::from_be_bytes(first))
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
