namespace convoy {}
