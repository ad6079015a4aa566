//! Tests of the whole system: the deployer, the local cloud, the function, load balancers and workers, each as its own
//! program. `make test` runs `tests/system`, `make boot-test` runs `tests/boot`.
