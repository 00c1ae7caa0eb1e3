"""The one service layer under all faces: views read, commands act. No face has logic of its own or speaks SQL."""
