//! Machines that pull nothing: the release's image archive comes with its program, pushed or pulled, and goes with it.

use datahub::checksum::sha256_hex;

use super::web::Web;
use super::{Cluster, NEW, at, program};

const IMAGES: &str = "k3s-airgap-images-amd64.tar.zst";
const THERE: &str = "/var/lib/rancher/k3s/agent/images";

#[test]
fn images_come_with_the_release() {
    let web = Web::start();
    let lines = format!("source = {:?}\nairgap = true", web.base);
    let Some(cluster) = Cluster::with("images_come_with_the_release", NEW, lines) else { return };
    let program = program(NEW);
    let serve = |images: &str| {
        let list = format!("{}  k3s\n{}  {IMAGES}\n", sha256_hex(&program), sha256_hex(images.as_bytes()));
        web.put(&at(NEW, "sha256sum-amd64.txt"), list);
        web.put(&at(NEW, IMAGES), images);
    };
    web.put(&at(NEW, "k3s"), program.clone());
    serve("the images");
    let server = ["provision", "--node", "s"];
    cluster.run(&server).ends_with(0);
    assert_eq!(
        cluster.lab.sh("s", &format!("cat {THERE}/{IMAGES}; ls -A {THERE}")),
        format!("the images{IMAGES}")
    );
    let started = cluster.started("s");
    cluster.run(&server).ends_with(0).finished("s", 0, 0);
    assert_eq!(cluster.started("s"), started);

    // Others take the place of the old ones, and K3s takes them in when it starts.
    serve("other images");
    cluster.run(&server).ends_with(0).finished("s", 1, 1);
    assert_eq!(
        cluster.lab.sh("s", &format!("cat {THERE}/*; ls -A {THERE}")),
        format!("other images{IMAGES}")
    );
    assert_ne!(cluster.started("s"), started);
    assert!(cluster.is_ready("s"));
}
