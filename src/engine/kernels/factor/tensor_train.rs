//! tensor_train
