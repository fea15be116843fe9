//! Tiny models that the engine really opens.

use serde_json::json;

/// A safetensors file with one F32 matrix a name, filled with a fixed pattern.
pub fn safetensors(tensors: &[(&str, [usize; 2])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for (name, [rows, columns]) in tensors {
        let begin = data.len();
        for i in 0..rows * columns {
            let value = ((i * 37 + name.len() * 11) % 201) as f32 / 100.0 - 1.0;
            data.extend_from_slice(&value.to_le_bytes());
        }
        let entry = json!({"dtype": "F32", "shape": [rows, columns], "data_offsets": [begin, data.len()]});
        header.insert((*name).to_owned(), entry);
    }
    let mut head = serde_json::to_vec(&header).expect("JSON");
    head.resize(head.len().next_multiple_of(8), b' ');
    let mut file = (head.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(&head);
    file.extend_from_slice(&data);
    file
}

/// A safetensors file that is enough for most tests.
pub fn small() -> Vec<u8> {
    safetensors(&[
        ("a.weight", [8, 64]),
        ("b.weight", [4, 128]),
        ("c.weight", [2, 32]),
    ])
}
