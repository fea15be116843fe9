UPDATE upload SET client_metadata = 'filename YS5iaW4=' WHERE id = 'upl_01939a6b2b3c7d0e8f00000000000004';
