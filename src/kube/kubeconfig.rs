//! A kubeconfig for the operator.
